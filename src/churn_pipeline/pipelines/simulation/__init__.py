"""Draws a synthetic customer base with a known churn probability for each customer."""

from churn_pipeline.pipelines.simulation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
