"""Hold a raw table to its contract: rows that keep it become customers, rows that break it go to quarantine."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from churn_pipeline.contract.cells import final_dtype, read_cells
from churn_pipeline.contract.errors import EXAMPLES, Finding
from churn_pipeline.contract.schema import broken_checks, value_checks
from churn_pipeline.contract.table import Contract


@dataclass(frozen=True)
class ValidationResult:
    """What became of a raw table's rows.

    Attributes
    ----------
    customers
        Rows that keep the contract, typed, in the contract's columns and order; a fresh index.
    quarantine
        Rows that break it as they came, with ``row`` (counted from 1 below the header) and ``reasons``.
    findings
        Every broken rule with its count and first rows.
    """

    customers: pd.DataFrame
    quarantine: pd.DataFrame
    findings: tuple[Finding, ...]


def validate_table(raw: pd.DataFrame, contract: Contract) -> ValidationResult:
    """Split a raw table by its contract. Every row in is a customer or a quarantined row."""
    raw = raw.reset_index(drop=True)
    cells, findings = {}, []
    reasons = np.full(len(raw), "", dtype=object)

    def note(column: str | None, rule: str, broken: np.ndarray) -> None:
        reasons[broken] += f"{column or 'row'}: {rule}; "
        rows = tuple(int(row) + 1 for row in broken[:EXAMPLES])
        findings.append(Finding(rule, column, len(broken), rows))

    for name, column in contract.columns.items():
        cells[name], unreadable = read_cells(raw[name], column)
        missing = cells[name].isna() & ~unreadable
        if unreadable.any():
            note(name, f"is not {column.dtype}", np.flatnonzero(unreadable))
        if missing.any() and not column.nullable:
            note(name, "is missing", np.flatnonzero(missing))
    typed = pd.DataFrame(cells)
    for where, rule, rows in broken_checks(typed, value_checks(contract)):
        note(where, rule, np.asarray(range(len(raw)) if rows is None else rows))
    if contract.key:
        repeated = np.flatnonzero(typed.duplicated(list(contract.key), keep=False))
        if len(repeated):
            note(" + ".join(contract.key), "is not unique", repeated)

    broken = reasons != ""
    customers = typed[~broken].reset_index(drop=True)
    customers = customers.astype({name: final_dtype(column) for name, column in contract.columns.items()})
    quarantine = raw[broken].astype(object)
    quarantine.insert(0, "row", np.flatnonzero(broken) + 1)
    quarantine["reasons"] = [reason.removesuffix("; ") for reason in reasons[broken]]
    return ValidationResult(customers, quarantine.reset_index(drop=True), tuple(findings))
