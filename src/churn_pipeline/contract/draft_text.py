"""Writes a drafted table file. Optional keys are comments: without the '# ' in front of them, they are valid."""

import json
import re
from typing import Any

import pandas as pd

from churn_pipeline.contract import draft_names as names
from churn_pipeline.contract.draft_roles import GuessedRoles
from churn_pipeline.contract.guesses import DraftedColumn

UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")  # YAML does not allow these
HEADER = """\
# Drafted from the data: check and correct it, and describe the columns. Guesses are marked.
# Optional keys are comments: to use one, remove the "# " in front of it.
description: ""
"""
LABEL = """\
label:
  meaning: "What the target means, when it was observed and over which horizon: please write it"
  observed: ""
"""
HORIZON_REMARK = "days or months from a row's date until its label is known, such as 31 days"
DAYS_PER_MONTH = 365.25 / 12
COLUMN_KEYS = """\
# Each column may also have these keys:
#   title: "…", description: "…"
#   default: 0         the value of a missing cell, of the column's type
#   unique: true       no value occurs twice
"""


def file_text(source: dict[str, Any], columns: dict[str, DraftedColumn], roles: GuessedRoles) -> str:
    """The YAML text of a table file."""
    lines = ["source:", *_yaml_lines(source, 2), *LABEL.splitlines()]
    lines += [_horizon_line(columns, roles), *_cost_lines(_value_column(columns, roles))]
    lines += ["roles:", *_role_lines(columns, roles), *COLUMN_KEYS.splitlines(), "columns:"]
    for name, drafted in columns.items():
        lines += _column_lines(name, drafted)
    return HEADER + "\n".join(lines) + "\n"


def quoted(value: Any) -> str:
    """The value as it is written in YAML."""
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _yaml_lines(content: dict[str, Any], indent: int) -> list[str]:
    lines = []
    for key, value in content.items():
        shown = key if key.isidentifier() and key.islower() and key.isascii() and len(key) > 3 else quoted(key)
        if isinstance(value, dict):
            lines += [f"{' ' * indent}{shown}:", *_yaml_lines(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{shown}: {quoted(value)}")
    return lines


def _horizon_line(columns: dict[str, DraftedColumn], roles: GuessedRoles) -> str:
    if not roles.date:
        return f"  # horizon: 3 months  # {HORIZON_REMARK}; needed with roles.date"
    dates = pd.DatetimeIndex(columns[roles.date].cells.dropna().unique()).sort_values()
    step = pd.Series(dates[1:] - dates[:-1]).median().days if len(dates) > 1 else 0
    # Whole months, because a horizon that is too short leaks later labels into training, and a longer one only costs rows.
    months = max(1, round(step / DAYS_PER_MONTH))
    unit = "month" if months == 1 else "months"
    return f"  horizon: {months} {unit}  # guessed from the step between the dates: {HORIZON_REMARK}"


def _value_column(columns: dict[str, DraftedColumn], roles: GuessedRoles) -> str | None:
    """A numeric feature that could be what a customer is worth."""
    features = roles.features(columns)
    numeric = [name for name in features if columns[name].column.kind == "numeric"]
    return next((name for name in numeric if names.MONEY.search(names.words(name))), None)


def _cost_lines(value: str | None) -> list[str]:
    amount = f"{{column: {quoted(value)}, months: 12}}" if value else "500"
    remark = "or one number for all customers" if value else 'or {column: "…", months: 12}'
    return [
        "# costs:  # without it, the costs in conf/base/parameters_evaluation.yml",
        f"#   value: {amount}  # what a saved customer is worth; {remark}",
        "#   offer_cost: 50  # per accepted offer",
        "#   contact_cost: 5  # per contact",
        "#   acceptance: 0.3  # share of contacted churners who accept and stay",
        '#   currency: "€"',
    ]


def _role_lines(columns: dict[str, DraftedColumn], roles: GuessedRoles) -> list[str]:
    features = roles.features(columns)
    example = quoted(features[-1] if features else next(iter(columns)))
    lines = [_id_line(columns, roles), _target_line(columns, roles)]
    if roles.protected:
        lines += [
            f"  protected: {quoted(roles.protected)}  # guessed: for audit, not inputs of the model",
            f"  # protected_features: [{quoted(roles.protected[0])}]  # protected columns that are features nevertheless",
        ]
    else:
        lines += [
            f"  # protected: [{example}]  # example: columns for audit, not inputs of the model; none was guessed",
            f"  # protected_features: [{example}]  # example: protected columns that are features nevertheless",
        ]
    if roles.date:
        lines.append(f"  date: {quoted(roles.date)}  # guessed: the date of the row")
    else:
        date = next((name for name in columns if columns[name].column.kind == "date"), "a date column")
        lines.append(
            f"  # date: {quoted(date)}  # the date of the row, if a customer has several rows; needs label.horizon"
        )
    if roles.ignored:
        lines.append("  ignored:  # guessed, with the reason")
        lines += [f"    - {quoted(name)}  # {reason}" for name, reason in roles.ignored.items()]
    else:
        lines.append(f"  # ignored: [{example}]  # example: columns known only after the churn; none was guessed")
    return lines


def _id_line(columns: dict[str, DraftedColumn], roles: GuessedRoles) -> str:
    if roles.id:
        return f"  id: {quoted(roles.id)}  # {'given' if roles.choices.id else 'guessed'}"
    if roles.choices.decline_id(columns):
        return "  # id: none, as given; rows are then identified by their feature values"
    unique = [name for name in columns if columns[name].is_unique and columns[name].column.dtype == "int64"]
    if unique:
        return f"  # id: {quoted(unique[0])}  # not chosen: different in every row, but its name is that of a quantity"
    return "  # id: none found; without one, split.identical_rows says which rows are one customer"


def _target_line(columns: dict[str, DraftedColumn], roles: GuessedRoles) -> str:
    target = roles.target
    check = "" if target.is_likely else ": please check"
    origin = "given" if roles.choices.target and roles.choices.positive else f"guessed{check}"
    line = f"  target: {{column: {quoted(target.column)}, positive: {quoted(target.positive)}}}  # {origin}"
    levels = [level for level in columns[target.column].column.isin or () if level != target.positive]
    return f"{line}; not churned: {', '.join(map(quoted, levels))}" if len(levels) > 1 else line


def _column_lines(name: str, drafted: DraftedColumn) -> list[str]:
    column = drafted.column
    remark = f"  # {'; '.join(drafted.remarks)}" if drafted.remarks else ""
    lines = [f"  {quoted(name)}:{remark}", f"    dtype: {column.dtype}"]
    if column.nullable:
        lines.append("    nullable: true")
        lines.append(f"    # default: {_default(drafted)}  # example: value of a missing cell")
    if column.isin is not None:
        lines.append(f"    isin: {quoted(list(column.isin))}")
    if column.in_range is not None:
        bounds = column.in_range
        lines.append(f"    in_range: {{min_value: {bounds.min_value}, max_value: {bounds.max_value}}}")
    return lines


def _default(drafted: DraftedColumn) -> str:
    if drafted.column.isin is not None:
        return quoted(drafted.column.isin[0])
    examples = {"str": '"none"', "bool": "false", "datetime64[ns]": '"2000-01-01"'}
    return examples.get(drafted.column.dtype, "0")
