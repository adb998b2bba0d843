"""What a person should look at in a valid table and its contract before training: guesses, copies, constants, free text."""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.cells import churned
from churn_pipeline.contract.draft_copies import copies_of_target
from churn_pipeline.contract.draft_roles import reason_to_ignore
from churn_pipeline.contract.draft_target import GuessedTarget
from churn_pipeline.contract.errors import Finding
from churn_pipeline.contract.guesses import DraftedColumn
from churn_pipeline.contract.table import Contract

GUESSED_LINE = re.compile(r"(?P<content>[^#\s][^#]*?)\s+# .*\bguessed\b")
SEEN_LINE = re.compile(r'"(?P<column>.*)":\s+# .*\bseen -?\d')
PLACEHOLDER = "please write it"
SHOWN = 6


def review_file(text: str, contract: Contract) -> Iterator[Finding]:
    """What is still a guess in the text of a table file, and whether the label has a meaning."""
    seen = []
    for number, line in enumerate(text.splitlines(), start=1):
        if found := GUESSED_LINE.match(line.strip()):
            content = found["content"].removeprefix("- ").rstrip(":")
            yield Finding(f"line {number}: {content} is a guess", fix="Check it, then delete the word 'guessed'.")
        if found := SEEN_LINE.match(line.strip()):
            seen.append(found["column"])
    if seen:
        rule = f"bounds from the values seen in {_columns(seen)}"
        yield Finding(rule, fix="Write what is possible, then delete the comment 'seen …'.")
    if not contract.label.meaning.strip() or PLACEHOLDER in contract.label.meaning:
        fix = "Write what the target means, when it was observed and over which horizon."
        yield Finding("label.meaning is empty", fix=fix)


def review_customers(customers: pd.DataFrame, contract: Contract) -> Iterator[Finding]:
    """What is suspicious in the valid rows of a table.

    Parameters
    ----------
    customers
        Valid rows, typed, with the contract's columns.
    contract
        The table's contract.
    """
    drafted = {name: DraftedColumn(contract.columns[name], customers[name]) for name in contract.features}
    yield from _target_levels(customers, contract)
    yield from _target_copies(customers, contract, drafted)
    for name, column in drafted.items():
        yield from _feature(name, column, contract)
    yield from _duplicates(customers, contract)


def review_columns(raw: pd.DataFrame, contract: Contract) -> Iterator[Finding]:
    """Columns of the file that are missing from the contract."""
    for name in (str(name) for name in raw.columns):
        if name not in contract.columns:
            fix = "Training does not use it: add it to columns, or leave it out."
            yield Finding("is in the file but missing from the contract", name, fix=fix)


def level_shares(customers: pd.DataFrame, contract: Contract) -> tuple[str, list[str]]:
    """The positive level of the target with its share, and each other level with its share."""
    target = contract.roles.target
    shares: Mapping[object, float] = customers[target.column].value_counts(normalize=True).to_dict()
    others = [f"{level!r} ({share:.1%})" for level, share in shares.items() if level != target.positive]
    return f"{target.positive!r} ({shares.get(target.positive, 0.0):.1%})", others


def _target_levels(customers: pd.DataFrame, contract: Contract) -> Iterator[Finding]:
    positive, others = level_shares(customers, contract)
    if len(others) > 1:
        rule = f"{positive} counts as churned, and {', '.join(others)} as not churned"
        fix = "Remove the rows of customers who are neither, or make a column with two values."
        yield Finding(rule, contract.roles.target.column, fix=fix)


def _target_copies(
    customers: pd.DataFrame, contract: Contract, features: Mapping[str, DraftedColumn]
) -> Iterator[Finding]:
    role = contract.roles.target
    target = DraftedColumn(contract.columns[role.column], customers[role.column])
    guessed = GuessedTarget(role.column, role.positive, is_likely=True)
    for name, reason in copies_of_target({role.column: target, **features}, guessed):
        yield Finding(reason, name, fix="If it is known only after the churn, add it to roles.ignored.")


def _feature(name: str, drafted: DraftedColumn, contract: Contract) -> Iterator[Finding]:
    if drafted.distinct <= 1:
        rule = "has the same value in every row" if drafted.distinct else "is empty in every row"
        yield Finding(rule, name, fix="Add it to roles.ignored.")
    elif reason := reason_to_ignore(name, drafted):
        yield Finding(f"{reason}, but a feature", name, fix="Add it to roles.ignored, or make it roles.id.")
    elif names.is_protected(name) and name not in contract.roles.protected:
        fix = "Add it to roles.protected; roles.protected_features keeps it as a feature."
        yield Finding("its name is that of a protected attribute, but it is a feature", name, fix=fix)


def _duplicates(customers: pd.DataFrame, contract: Contract) -> Iterator[Finding]:
    hashes = pd.util.hash_pandas_object(customers[list(contract.features)], index=False)
    repeated = hashes.duplicated(keep="first").to_numpy()
    if not repeated.any():
        return
    label = churned(customers, contract)
    mixed = label.groupby(hashes.to_numpy()).transform("nunique").to_numpy() > 1
    rule = f"rows that repeat the features of an earlier row: {int(repeated.sum()):,}"
    if contradicting := int(np.count_nonzero(mixed)):
        rule += f"; rows that share their features with a row of the other label: {contradicting:,}"
    yield Finding(rule, fix="Remove rows that the export repeated; different customers may be equal.")


def _columns(found: list[str]) -> str:
    more = len(found) - SHOWN
    return ", ".join(f"'{name}'" for name in found[:SHOWN]) + (f" and {more} more columns" if more > 0 else "")
