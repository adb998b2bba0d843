"""Kedro project settings: https://docs.kedro.org/en/stable/configure/configuration_basics/."""

# ruff: noqa: E402 - MLflow reads the telemetry setting when it is imported
from churn_pipeline import disable_telemetry

disable_telemetry()

from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader
from churn_pipeline.hooks import ConfigurationHooks, ProgressHooks, RecordHooks
from churn_pipeline.runners import RunnerHooks
from churn_pipeline.tracking import TrackingHook

# Kedro calls the hook that comes last first: MLflow's run is open before the others need it.
HOOKS = (ConfigurationHooks(), RecordHooks(), ProgressHooks(), RunnerHooks(), TrackingHook())
# TrackingHook replaces kedro-mlflow's own hook. Kedro compares names as the plugin's metadata spells them.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow", "kedro-mlflow")
CONFIG_LOADER_CLASS = TableConfigLoader
CONFIG_LOADER_ARGS = LOADER_ARGS
