"""Refit: a registered version on the current training customers, with its settings."""

from churn_pipeline.pipelines.refit.pipeline import create_pipeline

__all__ = ["create_pipeline"]
