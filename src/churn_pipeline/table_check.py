"""Checks a table as training does, without training: the same nodes, settings and leak check, in memory."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from kedro.config import MissingConfigException
from kedro.io import DataCatalog
from kedro.validation.parameter_validator import ParameterValidator

from churn_pipeline.configuration import LOADER_ARGS, TableConfigLoader
from churn_pipeline.contract.cells import current_customers
from churn_pipeline.contract.errors import EXAMPLES, Finding, TableError
from churn_pipeline.contract.review import level_shares, review_columns, review_customers, review_file
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import CostModel
from churn_pipeline.datasets.raw_table_dataset import causes
from churn_pipeline.installation import conf_source
from churn_pipeline.leaks import find_leaks
from churn_pipeline.pipelines.data_engineering import create_pipeline
from churn_pipeline.pipelines.table_costs import cost_model, customer_values

# What training needs from data engineering. The leak check is called here, because the node raises the findings of one tier.
OUTPUTS = ("train_features", "train_label", "folds")


@dataclass
class TableCheck:
    """What stops training, what deserves a look, and what is fine; each entry is one line."""

    stops: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    fine: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = {"Stops training": self.stops, "Deserves a look": self.looks, "Fine": self.fine}
        return "\n".join(
            "\n".join([f"{title}:", *(f"  - {line}" for line in lines)]) for title, lines in parts.items() if lines
        )


def check_table(project: Path, name: str, env: str | None = None) -> TableCheck:
    """Check the table of this name, with the parameters of the project's configuration.

    Raises
    ------
    ProjectError
        When the configuration or the contract has mistakes.
    """
    # Paths in the catalog are relative to the project.
    with chdir(project):
        return _check_table(Path.cwd(), name, env)


def _check_table(project: Path, name: str, env: str | None) -> TableCheck:
    loader = TableConfigLoader(conf_source(project), env=env, runtime_params={"table": name}, **LOADER_ARGS)
    catalog = _catalog(loader)
    contract: Contract = catalog.load("contract")
    check = TableCheck()
    check.looks += map(str, review_file(loader.table_text, contract))
    try:
        raw = catalog.load("raw_customers")
    except Exception as error:
        # The catalog wraps what a dataset or its validator raises.
        refused = next((cause for cause in causes(error) if isinstance(cause, TableError)), None)
        if refused is None:
            raise
        check.stops += _lines(refused)
        return check
    check.looks += map(str, review_columns(raw, contract))
    data = {"raw_customers": raw, "contract": contract, **_parameters(loader)}
    with _no_warnings():
        check.stops += [*_run_nodes(data), *_check_costs(data)]
    _add_invalid_rows(check, data, catalog.get("raw_customers"))
    if "valid_rows" in data and len(data["valid_rows"]):
        _review(check, data)
    return check


def _catalog(loader: TableConfigLoader) -> DataCatalog:
    """The two datasets that a check reads; making all of the catalog's would import MLflow."""
    entries = {name: loader["catalog"][name] for name in ("contract", "raw_customers")}
    try:
        credentials = loader["credentials"]
    except MissingConfigException:
        credentials = {}
    return DataCatalog.from_config(entries, credentials)


def _parameters(loader: TableConfigLoader) -> dict[str, Any]:
    """The parameters by their names as inputs of nodes, with the types of data engineering's nodes."""
    typed = ParameterValidator({"data_engineering": create_pipeline()}).validate_raw_params(loader["parameters"])
    return {f"params:{name}": value for name, value in typed.items()}


def _run_nodes(data: dict[str, Any]) -> Iterator[str]:
    """Run every node whose inputs exist, add its outputs to `data`, and yield what stops training."""
    for node in create_pipeline().to_outputs(*OUTPUTS).nodes:
        if all(name in data for name in node.inputs):
            try:
                data |= node.run({name: data[name] for name in node.inputs})
            except TableError as error:
                yield from _lines(error)


def _check_costs(data: dict[str, Any]) -> Iterator[str]:
    """What makes the evaluation stop: a mistake in the cost model, or a customer without a value."""
    try:
        costs = CostModel.model_validate(cost_model(data["contract"], data["params:costs"]))
        if "holdout_customers" in data:
            customer_values(costs, data["holdout_customers"])
            customer_values(costs, current_customers(data["customers"], data["contract"]))
    except TableError as error:
        yield from _lines(error)


def _lines(error: TableError) -> Iterator[str]:
    for finding in error.findings:
        # Rows have a line of their own, and check writes no quarantine file.
        if finding.column is not None and not finding.count:
            yield str(finding)
        elif not finding.count:
            yield f"{error.subject}. {finding.fix}" if finding.fix else f"{error.subject}: {finding.rule}"


def _add_invalid_rows(check: TableCheck, data: dict[str, Any], raw_dataset: Any) -> None:
    report = data.get("contract_report")
    if report is None:
        return
    rows, findings = report["rows"], [Finding(**finding) for finding in report["findings"]]
    most = data["params:quarantine"].max_share
    lines = check.stops if rows["quarantined"] > most * rows["in"] else check.looks
    lines += [str(finding) for finding in _with_places(findings, raw_dataset)]
    share = f"{rows['in']:,} rows: {rows['valid']:,} valid, {rows['quarantined']:,} invalid"
    if "customers" in data:
        check.fine.append(f"{share}; training stops above {most:.1%}")


def _with_places(findings: Sequence[Finding], raw_dataset: Any) -> list[Finding]:
    """The findings with lines of the file instead of rows, where the file has lines."""
    shown = sorted({row for finding in findings for row in finding.rows[:EXAMPLES]})
    places = raw_dataset.file_rows(shown) if shown and hasattr(raw_dataset, "file_rows") else None
    if places is None or len(places) < len(shown):
        return list(findings)
    return [replace(one, rows=tuple(places[row] for row in one.rows[:EXAMPLES]), unit="line") for one in findings]


def _review(check: TableCheck, data: dict[str, Any]) -> None:
    contract: Contract = data["contract"]
    customers: pd.DataFrame = data["valid_rows"]
    leaking = set()
    if "train_label" in data:
        churned, groups = data["train_label"]["churned"], data["train_groups"]["customer"]
        settings, seed = data["params:leaks"], data["params:seed"]
        report = find_leaks(data["train_features"], churned.to_numpy(), settings, seed, groups.to_numpy())
        for leak in report.findings:
            fix = "If it is known only after the churn, add it to roles.ignored; if not, to leaks.allowed."
            line = str(Finding(f"likely leak, {leak.evidence}", ", ".join(leak.columns), fix=fix))
            (check.stops if leak.tier == "stop" else check.looks).append(line)
            leaking |= set(leak.columns)
        check.fine.append(f"{len(data['train_features']):,} customers for training, {_held_out(data)}")
    check.looks += [str(finding) for finding in review_customers(customers, contract) if finding.column not in leaking]
    positive, others = level_shares(customers, contract)
    if len(others) == 1:
        check.fine.append(f"target '{contract.roles.target.column}': churned {positive}, not churned {others[0]}")
    roles = contract.roles
    check.fine.append(
        f"{len(contract.features)} features; id {roles.id or 'none'}, protected {', '.join(roles.protected) or 'none'}, "
        f"ignored {', '.join(roles.ignored) or 'none'}"
    )


def _held_out(data: dict[str, Any]) -> str:
    return f"{len(data['holdout_customers']):,} held out, {len(data['set_aside_customers']):,} set aside"


@contextmanager
def _no_warnings() -> Iterator[None]:
    """The nodes log what the check reports."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
