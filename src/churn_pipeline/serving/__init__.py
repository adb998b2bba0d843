"""The service: a compiled model behind HTTP. It imports no kedro, mlflow, pandas or scikit-learn."""
