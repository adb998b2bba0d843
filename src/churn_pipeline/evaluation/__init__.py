"""Evaluation of churn probabilities: metrics, intervals, profit, segments, the promotion gate, plots and the model card."""
