"""Evaluation: the chosen model evaluated on customers it never saw."""

from churn_pipeline.pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
