"""Nodes of data engineering: validate the raw table against its contract, split it, and report on it."""

import logging
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from churn_pipeline.contract.cells import churned, model_inputs, raw_digest, table_digest
from churn_pipeline.contract.errors import Finding, TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.leaks import LeakSettings, find_leaks
from churn_pipeline.pipelines.data_engineering import splitting
from churn_pipeline.pipelines.data_engineering.identity import identify_customers
from churn_pipeline.pipelines.data_engineering.splitting import HOLDOUT, TRAIN, SplitSettings

logger = logging.getLogger(__name__)


class QuarantineSettings(BaseModel):
    """The share of invalid rows above which the run stops."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_share: float = Field(ge=0, lt=1)


def validate_customers(raw: pd.DataFrame, contract: Contract) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Convert the raw cells to the contract's types, and separate invalid rows.

    Returns
    -------
    valid_rows : pandas.DataFrame
        Valid rows, typed.
    quarantine : pandas.DataFrame
        Invalid rows with their raw cells, row numbers and reasons.
    report : dict
        Counts, findings without any customer's value, and digests of data and contract.
    """
    result = validate_table(raw, contract)
    report = {
        "table": contract.name,
        "rows": {"in": len(raw), "valid": len(result.customers), "quarantined": len(result.quarantine)},
        "findings": [vars(finding) for finding in result.findings],
        "columns_not_in_contract": sorted({str(name) for name in raw.columns} - set(contract.columns)),
        "digests": {"data": raw_digest(raw), "contract": contract.digest()},
    }
    if len(result.customers) + len(result.quarantine) != len(raw):
        raise AssertionError(f"rows were lost: {report['rows']}")
    return result.customers, result.quarantine, report


def check_quarantine(
    valid_rows: pd.DataFrame, report: dict[str, Any], contract: Contract, settings: QuarantineSettings
) -> pd.DataFrame:
    """Return the valid rows, or stop the run.

    Raises
    ------
    TableError
        When the share of invalid rows is above ``settings.max_share``, or all customers are of one class.
    """
    rows, findings = report["rows"], [Finding(**finding) for finding in report["findings"]]
    logger.info(
        "Rows in %s = valid %s + quarantined %s", *(f"{rows[part]:,}" for part in ("in", "valid", "quarantined"))
    )
    if rows["quarantined"] > settings.max_share * rows["in"]:
        share = f"{rows['quarantined']:,} of {rows['in']:,} rows are invalid, more than {settings.max_share:.1%}"
        fix = "Fix the data or the contract, or raise `quarantine.max_share`."
        raise TableError(
            f"The table '{contract.name}' cannot be used: {share}",
            [*findings, Finding("the rows and their reasons are in the quarantine file", fix=fix)],
        )
    for finding in findings:
        logger.warning("Quarantined: %s", finding)
    churn_share = churned(valid_rows, contract).mean()
    if churn_share in (0.0, 1.0):
        rule = f"no customer {'churned' if churn_share == 0 else 'stayed'}"
        fix = "Check roles.target.positive in the table file."
        raise TableError(
            f"The table '{contract.name}' cannot be used", [Finding(rule, contract.roles.target.column, fix=fix)]
        )
    return valid_rows


def split_customers(
    customers: pd.DataFrame, contract: Contract, settings: SplitSettings
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Split customers into training rows, hold-out rows, and rows that are set aside, with the reason.

    Returns
    -------
    train, holdout, set_aside : pandas.DataFrame
        Rows of `customers`; those that are set aside have a further column, ``reason``.
    train_groups, holdout_groups : pandas.DataFrame
        One column, ``customer`` (int64): equal numbers are rows of one customer.
    report : dict
        Rows and churn share of both sides, rows that are set aside by reason, and which rows are one customer.

    Raises
    ------
    TableError
        When one side lacks a class, a customer is on both sides, or too many rows are set aside.
    """
    identity = identify_customers(customers, contract, settings.identical_rows)
    logger.info("%s", identity.report["reason"])
    side = splitting.sides(customers, identity, contract, settings)
    splitting.check_set_aside(side, contract.name, settings)
    parts, groups = {}, {}
    for part in (TRAIN, HOLDOUT):
        parts[part] = customers[side == part].reset_index(drop=True)
        groups[part] = pd.DataFrame({"customer": identity.groups[side == part]})
        _check_classes(parts[part], part, contract)
    splitting.check_disjoint(
        groups[TRAIN]["customer"].to_numpy(), groups[HOLDOUT]["customer"].to_numpy(), "the hold-out"
    )
    rest = ~side.isin([TRAIN, HOLDOUT])
    set_aside = customers[rest].assign(reason=side[rest]).reset_index(drop=True)
    report: dict[str, Any] = {
        part: {"rows": len(rows), "churn_share": float(churned(rows, contract).mean())} for part, rows in parts.items()
    }
    report |= {"set_aside": side[rest].value_counts().to_dict(), "customers": identity.report}
    return parts[TRAIN], parts[HOLDOUT], set_aside, groups[TRAIN], groups[HOLDOUT], report


def _check_classes(rows: pd.DataFrame, part: str, contract: Contract) -> None:
    if churned(rows, contract).nunique() < 2:
        raise TableError(
            f"The table '{contract.name}' cannot be split",
            f"{part} has {len(rows):,} rows and lacks a class: provide more data, or change `split.holdout_share`",
        )


def features_and_label(customers: pd.DataFrame, contract: Contract) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The model's inputs, and the label as a table with one column, ``churned`` (int64, 1 = churn)."""
    return model_inputs(customers, contract), churned(customers, contract).to_frame()


def make_folds(
    train: pd.DataFrame,
    label: pd.DataFrame,
    groups: pd.DataFrame,
    contract: Contract,
    settings: SplitSettings,
    seed: int,
) -> pd.DataFrame:
    """Cross-validation folds; see `splitting.folds`."""
    return splitting.folds(train, label["churned"], groups["customer"].to_numpy(), contract, settings, seed)


def check_leaks(
    features: pd.DataFrame, label: pd.DataFrame, groups: pd.DataFrame, settings: LeakSettings, seed: int
) -> dict[str, Any]:
    """Look for features that give the label away; see `churn_pipeline.leaks`.

    Returns
    -------
    dict
        ``findings`` (columns, tier, evidence and figures), and ``auc`` by feature, highest first.

    Raises
    ------
    TableError
        When a finding stops the run.
    """
    report = find_leaks(features, label["churned"].to_numpy(), settings, seed, groups["customer"].to_numpy())
    for finding in report.warnings:
        logger.warning("LIKELY LEAK: %s. Is it known before the label?", finding)
    if report.stops:
        fix = "If it is known only after the churn, put it under roles.ignored in the table file; if not, under leaks.allowed"
        raise TableError(
            "The table gives the label away",
            [Finding(f"likely leak, {found.evidence}", ", ".join(found.columns), fix=fix) for found in report.stops],
        )
    return report.to_dict()


def report_data(
    contract_report: dict[str, Any],
    split_report: dict[str, Any],
    holdout: pd.DataFrame,
    leaks: dict[str, Any],
    contract: Contract,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The data report, and the digests that identify the data.

    Returns
    -------
    report : dict
        Numbers of rows (in, valid, quarantined, training, hold-out, set aside), churn shares, which rows are one customer,
        findings and leaks.
    digests : dict of str
        Digests of the data, the contract and the hold-out rows.
    """
    rows = sum(split_report[part]["rows"] for part in (TRAIN, HOLDOUT)) + sum(split_report["set_aside"].values())
    if rows != contract_report["rows"]["valid"]:
        raise AssertionError("rows were lost in the split")
    digests = {**contract_report["digests"], "holdout": table_digest(holdout)}
    report = {
        **contract_report,
        "digests": digests,
        "split": split_report,
        "leaks": leaks,
        "label": contract.label.model_dump(),
        "features": list(contract.features),
        "protected": list(contract.roles.protected),
    }
    return report, digests
