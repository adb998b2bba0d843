"""Figures about the evaluation itself: splits, gate, leaks, decision, intervals and table drafts."""
