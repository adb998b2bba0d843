"""Modelling: one namespaced search and fit for each candidate, then the choice."""

from churn_pipeline.pipelines.modelling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
