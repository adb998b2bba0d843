"""Candidates, their preprocessing and search, the choice among them, and the conversion to ONNX."""
