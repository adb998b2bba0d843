"""Customer churn: explored, trained, judged, shipped and watched, every number reproducible."""

import warnings

__version__ = "0.1.0"


def quieten() -> None:
    """Filter two warnings that are not for the person at the keyboard; Kedro calls this before it loads its plugins.

    kedro-mlflow defines a model class at import that mlflow 3 has advice for, and Kedro 1.7 registers its resolvers by a
    name that omegaconf 2.4 has deprecated.
    """
    warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method", category=UserWarning)
    warnings.filterwarnings("ignore", message="register_new_resolver", category=UserWarning)


quieten()
