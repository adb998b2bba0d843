"""One pandas frame from what a source loads: a frame, chunks of a query, partitions of a folder, or an Ibis table.

Chunks become Arrow columns at once, so that memory holds the table once and not its Python objects. A cell that is not a
number, boolean or timestamp becomes the text that pandas would write to a CSV file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import methodcaller
from typing import Any

import pandas as pd
import pyarrow as pa

from churn_pipeline.contract.errors import Finding, TableError

CHUNK_ROWS = 50_000
TEXT = pa.large_string()
TYPES = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    TEXT: pd.StringDtype("pyarrow"),
}
CASTABLE = (
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    *(pa.types.is_decimal, pa.types.is_date, pa.types.is_time, pa.types.is_float16, pa.types.is_float32),
)
EXACT_IN_IBIS = tuple(
    methodcaller(f"is_{kind}")
    for kind in ("integer", "float64", "boolean", "timestamp", "string", "binary", "nested", "null")
)
BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)


def one_frame(loaded: Any) -> Any:
    """Combine what a source has loaded into one frame, and return anything else unchanged.

    Raises
    ------
    TableError
        If a column contains bytes, or the files of a folder have different columns.
    """
    if isinstance(loaded, pd.DataFrame):
        has_arrow = any(isinstance(dtype, pd.ArrowDtype) for dtype in loaded.dtypes)
        return combined([_table(loaded)]) if has_arrow else loaded
    if isinstance(loaded, Iterator):
        return combined(map(_table, _text_only(loaded)))
    if isinstance(loaded, dict) and all(callable(part) for part in loaded.values()):
        return _parts(loaded)
    if hasattr(loaded, "to_pyarrow_batches"):
        return combined(_tables(loaded))
    return loaded


def combined(tables: Iterable[pa.Table]) -> pd.DataFrame:
    """One frame from Arrow tables with the same columns; a column whose types differ between tables becomes text."""
    plain = [_plain(table) for table in tables]
    for position, name in enumerate(plain[0].column_names):
        # an empty or all-null column of a chunk says nothing about the type
        found = {table.column(position).type for table in plain if table.column(position).null_count < len(table)}
        if len(found) != 1:
            found = {TEXT}
        (wanted,) = found
        plain = [table.set_column(position, name, _converted(table.column(position), wanted)) for table in plain]
    whole = pa.concat_tables(plain)
    del plain
    frame: pd.DataFrame = whole.to_pandas(types_mapper=TYPES.get, split_blocks=True, self_destruct=True)
    return frame


def in_order(raw: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Sort rows by the key, or by all columns if the key does not identify a row; a database returns any order."""
    names = list(raw.columns)
    by = [name for name in key if name in names]
    if not by or raw.duplicated(by).any():
        by += [name for name in names if name not in by]
    sorted_index = raw[by].sort_values(by, kind="stable").index
    return raw if sorted_index.equals(raw.index) else raw.loc[sorted_index].reset_index(drop=True)


def _tables(ibis_table: Any) -> Iterator[pa.Table]:
    """The rows of an Ibis table in batches; the database converts the types that Ibis does not read exactly."""
    unsure = [
        name for name, dtype in ibis_table.schema().items() if not any(is_exact(dtype) for is_exact in EXACT_IN_IBIS)
    ]
    if unsure:
        ibis_table = ibis_table.mutate(**{name: ibis_table[name].cast("string") for name in unsure})
    if ibis_table.get_backend().name == "duckdb":
        # Ibis 12 reads batches by a method that DuckDB 2 has removed; DuckDB's memory is this process's in any case
        yield ibis_table.to_pyarrow()
        return
    batches = ibis_table.to_pyarrow_batches(chunk_size=CHUNK_ROWS)
    yield batches.schema.empty_table()
    yield from (pa.Table.from_batches([batch]) for batch in batches)


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()


def _text_only(chunks: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The chunks; pandas decodes the bytes of a database as UTF-8."""
    try:
        yield from chunks
    except UnicodeDecodeError:
        raise TableError("The raw table", "has a column of bytes: leave it out of the query or convert it") from None


def _plain(table: pa.Table) -> pa.Table:
    """The table with columns of numbers, booleans, timestamps and text."""
    names = table.column_names
    columns = [_plain_column(name, table.column(place)) for place, name in enumerate(names)]
    return pa.Table.from_arrays(columns, names=names)


def _plain_column(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        return _as_text(column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if any(is_binary(kind) for is_binary in BINARY):
        fix = "Leave it out (`sql`, or source.load_args.columns), or convert it to text in a query or view."
        raise TableError("The raw table", [Finding("contains bytes", name, fix=fix)])
    if kind in TYPES or pa.types.is_float64(kind) or pa.types.is_timestamp(kind):
        return column
    return column.cast(TEXT) if any(is_castable(kind) for is_castable in CASTABLE) else _as_text(column)


def _converted(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if column.type == wanted:
        return column
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), wanted)])
    return _as_text(column)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column's cells as Python writes them, which is what pandas writes to a CSV file."""
    cells = [None if cell is None else str(cell) for cell in column.to_pylist()]
    return pa.chunked_array([pa.array(cells, TEXT)])


def _parts(partitions: Mapping[str, Callable[[], pd.DataFrame]]) -> pd.DataFrame:
    """The rows of a folder's files, in the order of their names; Spark's own files begin with an underscore."""
    names = [name for name in sorted(partitions) if not name.rsplit("/", 1)[-1].startswith(("_", "."))]
    if not names:
        raise TableError("The raw table", "is a folder without data files: correct source.path")
    frames = {name: partitions[name]() for name in names}
    first = list(frames[names[0]].columns)
    findings = [
        Finding(f"the file {name} has other columns than {names[0]}", fix="Use one folder for one table.")
        for name in names
        if list(frames[name].columns) != first
    ]
    if findings:
        raise TableError("The raw table's folder", findings)
    whole: pd.DataFrame = one_frame(pd.concat(frames.values(), ignore_index=True))
    return whole
