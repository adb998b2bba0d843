"""The service: an ONNX model behind HTTP. It imports no kedro, mlflow, pandas or scikit-learn."""
