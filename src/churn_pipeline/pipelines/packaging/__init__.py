"""Packaging: a registered version as an ONNX model, checked for equivalence and built into a Bento."""

from churn_pipeline.pipelines.packaging.pipeline import create_pipeline

__all__ = ["create_pipeline"]
