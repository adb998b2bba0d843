"""Kedro project settings. https://docs.kedro.org/en/stable/configure/configuration_basics/."""

from churn_pipeline.configuration import TableConfigLoader
from churn_pipeline.hooks import ConfigurationHooks, ProgressHooks, RecordHooks

HOOKS = (ConfigurationHooks(), RecordHooks(), ProgressHooks())
CONFIG_LOADER_CLASS = TableConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*", "mlflow*/**", "**/mlflow*"]},  # as kedro-mlflow has it
}
