"""Estimators: preprocessing, candidates, their compilation to ONNX, and the rows that prove a compiled model equal."""
