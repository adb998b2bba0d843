"""Data engineering: from the raw table to training and hold-out customers."""

from churn_pipeline.pipelines.data_engineering.pipeline import create_pipeline

__all__ = ["create_pipeline"]
