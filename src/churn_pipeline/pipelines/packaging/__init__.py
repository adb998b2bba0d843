"""Packaging: a registered version, compiled, proven equal, and built into a Bento."""

from churn_pipeline.pipelines.packaging.pipeline import create_pipeline

__all__ = ["create_pipeline"]
