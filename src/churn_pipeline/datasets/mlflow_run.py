"""Tags and grouped metrics of the active MLflow run, for which kedro-mlflow has no datasets."""

from typing import Any, NoReturn

import mlflow
from kedro.io import AbstractDataset, DatasetError


class MlflowTagsDataset(AbstractDataset[dict[str, str], dict[str, str]]):
    """Tags of the active MLflow run.

    Examples
    --------
    >>> from churn_pipeline.datasets import MlflowTagsDataset
    >>> MlflowTagsDataset(prefix="data").save({"digest": "3f2a…"})  # doctest: +SKIP
    """

    def __init__(self, prefix: str = "", metadata: dict[str, Any] | None = None) -> None:
        self._prefix = f"{prefix}." if prefix else ""
        self.metadata = metadata

    def load(self) -> dict[str, str]:
        """Return the active run's tags under the prefix, with the prefix removed."""
        run = mlflow.active_run()
        if run is None:
            raise DatasetError("There is no active MLflow run to read tags from.")
        tags = mlflow.get_run(run.info.run_id).data.tags
        return {name.removeprefix(self._prefix): value for name, value in tags.items() if name.startswith(self._prefix)}

    def save(self, data: dict[str, str]) -> None:
        """Set the tags; do nothing without an active run (tracking is disabled)."""
        if mlflow.active_run() is not None:
            mlflow.set_tags({f"{self._prefix}{name}": str(value) for name, value in data.items()})

    def _describe(self) -> dict[str, Any]:
        return {"prefix": self._prefix}


class MlflowMetricsDataset(AbstractDataset[dict[str, float], NoReturn]):
    """Metrics of the active MLflow run, in groups; in MLflow, a slash in a name makes a group.

    Interval limits and the best possible values have groups of their own. The first group then shows the metrics by which
    runs are compared.

    Examples
    --------
    >>> from churn_pipeline.datasets import MlflowMetricsDataset
    >>> MlflowMetricsDataset(prefix="holdout").save({"auc": 0.85, "auc_lower": 0.83})  # doctest: +SKIP
    """

    GROUPS = {  # noqa: RUF012
        "_lower": "intervals/",
        "_upper": "intervals/",
        "_by_chance": "intervals/",
        "_best_possible": "best_possible/",
    }

    def __init__(self, prefix: str, metadata: dict[str, Any] | None = None) -> None:
        self._prefix = prefix
        self.metadata = metadata

    def save(self, data: dict[str, float]) -> None:
        """Log the metrics; do nothing without an active run (tracking is disabled)."""
        if mlflow.active_run() is not None:
            mlflow.log_metrics({self._add_group(name): value for name, value in data.items()})

    def load(self) -> NoReturn:
        """Raise an error: metrics are only logged."""
        raise DatasetError("Logged metrics cannot be loaded: read the dataset `metrics` instead.")

    def _add_group(self, name: str) -> str:
        group = next((group for ending, group in self.GROUPS.items() if name.endswith(ending)), "")
        return f"{self._prefix}/{group}{name}"

    def _describe(self) -> dict[str, Any]:
        return {"prefix": self._prefix}


class MlflowEvaluationsDataset(AbstractDataset[NoReturn, list[dict[str, str]]]):
    """Tags of all runs that evaluated a table on a hold-out, oldest first; deleted runs are missing.

    Parameters
    ----------
    table
        The table's name.

    Examples
    --------
    >>> from churn_pipeline.datasets import MlflowEvaluationsDataset
    >>> uses = MlflowEvaluationsDataset(table="telco").load()  # doctest: +SKIP
    """

    def __init__(self, table: str, metadata: dict[str, Any] | None = None) -> None:
        self._table = table
        self.metadata = metadata

    def load(self) -> list[dict[str, str]]:
        """Search the active run's experiment; without an active run (tracking is disabled) there are none."""
        active = mlflow.active_run()
        if active is None:
            return []
        runs = mlflow.search_runs(
            [active.info.experiment_id],
            filter_string=f"tags.table = '{self._table}' AND tags.holdout_rule != ''",
            order_by=["start_time"],
            output_format="list",
        )
        return [dict(run.data.tags) for run in runs if run.info.run_id != active.info.run_id]

    def save(self, data: NoReturn) -> None:
        """Raise an error: each run sets its own tags."""
        raise DatasetError("Earlier evaluations are only ever read.")

    def _describe(self) -> dict[str, Any]:
        return {"table": self._table}


def remove_group(metric: str) -> str:
    """Return a logged metric's name without its group, as older runs logged it.

    Examples
    --------
    >>> remove_group("holdout/intervals/auc_lower"), remove_group("holdout.auc_lower")
    ('holdout.auc_lower', 'holdout.auc_lower')
    """
    prefix, *group = metric.split("/")
    return f"{prefix}.{group[-1]}" if group else metric
