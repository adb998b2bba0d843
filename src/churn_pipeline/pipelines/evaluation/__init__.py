"""Evaluation: the chosen model is evaluated on held-out customers and registered."""

from churn_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
