"""The contract as a pandera schema, and the two validators that the catalog uses."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pandera.pandas as pa
import yaml
from pandera.errors import SchemaErrors
from pandera.io.pandas_io import deserialize_schema

from churn_pipeline.contract.cells import final_dtype
from churn_pipeline.contract.errors import EXAMPLES, Finding, TableError
from churn_pipeline.contract.table import Contract

NOT_CONTRACT = ("source", "truth")


def contract_from(content: Mapping[str, Any], name: str) -> Contract:
    """The contract in the content of a table file, which is everything except the keys ``source`` and ``truth``."""
    return Contract.parse({key: value for key, value in content.items() if key not in NOT_CONTRACT}, name)


def read_contract(filepath: str | Path, **storage_options: Any) -> Contract:
    """Read a table file.

    Parameters
    ----------
    filepath
        Its path, or any address that fsspec knows, such as ``tar://base/tables/telco.yml::conf.tar.gz``.
    **storage_options
        Arguments of fsspec's file system.

    Raises
    ------
    TableError
        When the file is missing, is not YAML, or its contract is invalid; it lists every mistake.
    """
    path = Path(str(filepath).split("::", maxsplit=1)[0])
    try:
        # In binary mode, because an archive's file system knows no text mode.
        with fsspec.open(str(filepath), "rb", **storage_options) as file:
            content = yaml.safe_load(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise TableError(f"The table file {path.name}", "does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise TableError(f"The table file {path.name}", f"is not valid YAML{line}") from None
    if not isinstance(content, dict):
        raise TableError(f"The table file {path.name}", "is empty: draft one with `kedro table draft`")
    return contract_from(content, path.stem)


def schema(contract: Contract) -> pa.DataFrameSchema:
    """The strict schema of ``customers``: exactly the contract's columns, in order, with types and checks."""
    columns = {
        name: {"dtype": final_dtype(column), "nullable": column.nullable and column.default is None, **column.checks}
        for name, column in contract.columns.items()
    }
    unique = list(contract.key) or None
    strict: pa.DataFrameSchema = deserialize_schema(  # type: ignore[no-untyped-call]
        {"columns": columns, "strict": True, "ordered": True, "unique": unique}
    )
    return strict


def value_checks(contract: Contract) -> pa.DataFrameSchema:
    """A schema of the value checks only, for cells that `read_cells` has typed; missing cells pass."""
    columns = {
        name: {"nullable": True, "unique": column.unique and name not in contract.key, **column.checks}
        for name, column in contract.columns.items()
    }
    checks: pa.DataFrameSchema = deserialize_schema({"columns": columns})  # type: ignore[no-untyped-call]
    return checks


def failed_checks(
    table: pd.DataFrame, checks: pa.DataFrameSchema
) -> Iterator[tuple[str | None, str, list[int] | None]]:
    """Every failed check as (column, rule, row positions); the positions are None for a check of the whole table."""
    try:
        checks.validate(table.reset_index(drop=True), lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        names = cases["column"].where(cases["column"].notna(), "").astype(str)
        for (column, rule), failures in cases.groupby([names, cases["check"].astype(str)], sort=False):
            rows = failures["index"].dropna()
            yield column or None, _rule(rule), sorted({int(row) for row in rows}) if len(rows) else None


def _rule(check: str) -> str:
    """The name of a check; a long list of levels is shortened, because the contract has it."""
    return check if len(check) <= 60 else f"{check[:50].rsplit(',', 1)[0]}, …"


class RawTable:
    """Catalog validator of the raw table as a whole; ``validate_customers`` validates its rows.

    Parameters
    ----------
    contract
        Path of the table file.

    Examples
    --------
    >>> catalog_entry = {"validator": {"class": "churn_pipeline.contract.schema.RawTable", "on": ["load"],
    ...                                "options": {"contract": "conf/base/tables/telco.yml"}}}
    """

    def __init__(self, contract: str) -> None:
        self._contract = contract

    def validate(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the table unchanged, or raise a `TableError` that lists every finding."""
        contract = read_contract(self._contract)
        findings = list(_file_findings(data, contract))
        if findings:
            raise TableError(f"The table '{contract.name}' cannot be used", findings)
        return data


def _file_findings(raw: pd.DataFrame, contract: Contract) -> Iterator[Finding]:
    seen = [str(name) for name in raw.columns]
    missing = [name for name in contract.columns if name not in seen]
    if len(missing) == len(contract.columns):
        yield Finding(
            "it has none of the contract's columns",
            fix="Check that it is the right file and that its separator is a comma.",
        )
        return
    for name in missing:
        yield Finding("is missing", name, fix="Add it to the file or remove it from the contract.")
    for name in sorted({name for name in seen if seen.count(name) > 1}):
        yield Finding("is in the header more than once", name)
    if raw.empty:
        yield Finding("it has a header but no rows")
    elif not missing and _is_truncated(raw, contract):
        yield Finding(
            "the last row ends early: the file seems truncated", rows=(len(raw),), count=1, fix="Copy it again."
        )


def _is_truncated(raw: pd.DataFrame, contract: Contract) -> bool:
    """Whether the last row lacks its last cells, although they may not be missing and the row above has them."""
    blank = raw.iloc[-2:].map(lambda cell: bool(pd.isna(cell)) or str(cell).strip() == "").to_numpy()
    column = contract.columns.get(str(raw.columns[-1]))
    ends_early = blank.shape[1] > 1 and blank[-1, -2:].all() and not blank[-1].all()
    return bool(ends_early and not blank[0, -1] and (column is None or not column.nullable))


class Customers:
    """Catalog validator of ``customers``: the strict schema.

    Parameters
    ----------
    contract
        Path of the table file.
    """

    def __init__(self, contract: str) -> None:
        self._contract = contract

    def validate(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the customers unchanged, or raise a `TableError` that contains no values."""
        contract = read_contract(self._contract)
        findings = [
            Finding(rule, column, len(rows or ()), tuple(row + 1 for row in (rows or ())[:EXAMPLES]))
            for column, rule, rows in failed_checks(data, schema(contract))
        ]
        if findings:
            raise TableError(f"The customers of table '{contract.name}' are invalid", findings)
        return data
