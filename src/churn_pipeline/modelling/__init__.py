"""Estimators: preprocessing, candidates, their compilation to ONNX, and the rows that prove an ONNX model equal."""
