"""Validates a raw table: valid rows become customers, invalid rows go to quarantine."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from churn_pipeline.contract.cells import final_dtype, read_cells
from churn_pipeline.contract.errors import EXAMPLES, Finding
from churn_pipeline.contract.schema import failed_checks, value_checks
from churn_pipeline.contract.table import Contract


@dataclass(frozen=True)
class ValidationResult:
    """The valid and the invalid rows of a raw table.

    Attributes
    ----------
    customers
        Valid rows, typed, with the contract's columns in its order and a new index.
    quarantine
        Invalid rows with their raw cells, and the columns ``row`` (the row below the header is 1) and ``reasons``.
    findings
        Every violated rule with its number of rows and the first of them.
    """

    customers: pd.DataFrame
    quarantine: pd.DataFrame
    findings: tuple[Finding, ...]


def validate_table(raw: pd.DataFrame, contract: Contract) -> ValidationResult:
    """Split a raw table into valid and invalid rows. No row is lost."""
    raw = raw.reset_index(drop=True)
    cells, findings = {}, []
    reasons = np.full(len(raw), "", dtype=object)

    def add_finding(column: str | None, rule: str, positions: np.ndarray) -> None:
        reasons[positions] += f"{column or 'row'}: {rule}; "
        rows = tuple(int(position) + 1 for position in positions[:EXAMPLES])
        findings.append(Finding(rule, column, len(positions), rows))

    for name, column in contract.columns.items():
        cells[name], unreadable = read_cells(raw[name], column)
        missing = cells[name].isna() & ~unreadable
        if unreadable.any():
            add_finding(name, f"is not {column.dtype}", np.flatnonzero(unreadable))
        if missing.any() and not column.nullable:
            add_finding(name, "is missing", np.flatnonzero(missing))
    typed = pd.DataFrame(cells)
    for failed, rule, positions in failed_checks(typed, value_checks(contract)):
        add_finding(failed, rule, np.asarray(range(len(raw)) if positions is None else positions))
    if contract.key:
        repeated = np.flatnonzero(typed.duplicated(list(contract.key), keep=False))
        if len(repeated):
            add_finding(" + ".join(contract.key), "is not unique", repeated)

    invalid = reasons != ""
    customers = typed[~invalid].reset_index(drop=True)
    customers = customers.astype({name: final_dtype(column) for name, column in contract.columns.items()})
    quarantine = raw[invalid].astype(object)
    # The table may have columns of these names; both are kept.
    shown = [reason.removesuffix("; ") for reason in reasons[invalid]]
    quarantine.insert(0, "row", np.flatnonzero(invalid) + 1, allow_duplicates=True)
    quarantine.insert(len(quarantine.columns), "reasons", shown, allow_duplicates=True)
    return ValidationResult(customers, quarantine.reset_index(drop=True), tuple(findings))
