"""Cells: every value in a file is read exactly or reported as unreadable; nothing is guessed."""

import datetime
import math
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.customers import make_contract, raw_customers

from churn_pipeline.contract.cells import churned, final_dtype, model_inputs, raw_digest, read_cells, table_digest
from churn_pipeline.contract.table import Column
from churn_pipeline.contract.validation import validate_table

property_test = settings(max_examples=50, deadline=None)
MOST, LEAST = 2**63 - 1, -(2**63)


def text(*cells: str | None) -> pd.Series:
    return pd.Series(list(cells), dtype=object)


def read(raw: pd.Series, dtype: str, **column: object) -> tuple[list[object], list[bool]]:
    """The cells, with None for missing ones, and whether each was unreadable."""
    cells, unreadable = read_cells(raw, Column(dtype=dtype, **column))
    return [None if pd.isna(cell) else cell for cell in cells], unreadable.tolist()


def same_bits(one: float, other: float) -> bool:
    return np.float64(one).tobytes() == np.float64(other).tobytes()


@pytest.fixture(params=["future.infer_string", "mode.copy_on_write"])
def newer_pandas(request: pytest.FixtureRequest) -> Iterator[None]:
    """Options that pandas 3 enables by default."""
    with pd.option_context(request.param, True):
        yield


# ---- floats ----------------------------------------------------------------------------------------------------------


@property_test
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_floats_are_read_to_the_last_bit(numbers: list[float]) -> None:
    for shown in (repr, "{:.17g}".format, " {!r} ".format):
        cells, unreadable = read_cells(text(*map(shown, numbers)), Column(dtype="float64"))
        assert all(map(same_bits, cells, numbers))
        assert not unreadable.any()


@property_test
@given(st.from_regex(r"[+-]?\d{1,25}(\.\d{0,25})?([eE][+-]?\d{1,2})?", fullmatch=True))
def test_decimals_of_any_length_equal_pythons_floats(decimal: str) -> None:
    if decimal.isascii():
        assert same_bits(read_cells(text(decimal), Column(dtype="float64"))[0][0], float(decimal))


@property_test
@given(st.text(alphabet="0123456789+-.eEdDxXinfaINF_, \t\x00%", max_size=8) | st.text(max_size=8))
@example("0.\x00")
def test_no_text_raises_an_error(cell: str) -> None:
    for dtype in ("str", "int64", "float64", "bool", "datetime64[ns]"):
        cells, unreadable = read_cells(text(cell), Column(dtype=dtype))
        assert len(cells) == 1
        blank = not cell.strip()
        assert unreadable[0] == (not blank and pd.isna(cells[0]))


@pytest.mark.parametrize(
    "word", ["abc", "nan", "NaN", "inf", "-inf", "Infinity", "1e400", "1,5", "1_000", "5 6", "0x10", "--1"]
)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_non_finite_numbers_are_unreadable(word: str, dtype: str) -> None:
    assert read(text("1", word), dtype) == ([1, None], [False, True])


# ---- whole numbers ---------------------------------------------------------------------------------------------------


@property_test
@given(st.lists(st.integers(LEAST, MOST), min_size=1, max_size=20))
def test_integers_are_read_exactly_from_text_and_from_numbers(numbers: list[int]) -> None:
    for raw in (text(*map(str, numbers)), pd.Series(numbers, dtype="int64"), pd.Series(numbers, dtype=object)):
        assert read(raw, "int64") == (numbers, [False] * len(numbers))


@pytest.mark.parametrize(
    ("cell", "number"), [("1.0", 1), (" 5 ", 5), ("1e3", 1000), ("-7", -7), ("+7", 7), ("-0.0", 0)]
)
def test_an_integer_may_be_written_as_a_decimal(cell: str, number: int) -> None:
    assert read(text(cell), "int64") == ([number], [False])


def test_a_long_integer_is_exact_even_next_to_one_that_is_too_large() -> None:
    cells = ["9007199254740993", "1e19", str(MOST), str(MOST + 1), "7", None]
    assert read(text(*cells), "int64", nullable=True) == (
        [9007199254740993, None, MOST, None, 7, None],
        [False, True, False, True, False, False],
    )


@pytest.mark.parametrize("cell", ["1.5", str(2**63), str(-(2**63) - 1), "9007199254740993.5", "1e19"])
def test_fractions_and_too_large_integers_are_unreadable_and_never_rounded(cell: str) -> None:
    assert read(text(cell), "int64") == ([None], [True])


def test_numbers_too_large_for_int64_are_unreadable_from_any_raw_type() -> None:
    for raw in (pd.Series([2**64 - 1, 5], dtype="uint64"), pd.Series([2**70, 5], dtype=object), pd.Series([1e30, 5.0])):
        assert read(raw, "int64") == ([None, 5], [True, False])


# ---- booleans, dates, text -------------------------------------------------------------------------------------------


def test_booleans() -> None:
    assert read(text("true", "FALSE", " Yes ", "no", "1", "0", "1.0", "maybe", "2"), "bool") == (
        [True, False, True, False, True, False, None, None, None],
        [False] * 6 + [True] * 3,
    )
    assert read(pd.Series([1.0, 0.0, np.nan, 2.0]), "bool") == ([True, False, None, None], [False, False, False, True])


@pytest.mark.parametrize(
    ("cell", "date"),
    [
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31 10:20:30", "2026-01-31 10:20:30"),
        ("2026-01-31T10:20:30+02:00", "2026-01-31 08:20:30"),
        ("2026-01-31T10:20:30Z", "2026-01-31 10:20:30"),
        ("2026-01-31T00:00:00.123456789", "2026-01-31 00:00:00.123456789"),
    ],
)
def test_dates_are_iso_and_in_utc(cell: str, date: str) -> None:
    cells, unreadable = read_cells(text(cell), Column(dtype="datetime64[ns]"))
    assert str(cells.dtype) == "datetime64[ns]"
    assert cells[0] == pd.Timestamp(date)
    assert not unreadable[0]


@pytest.mark.parametrize("cell", ["31/01/2026", "2026-02-30", "1600-01-01", "soon", "now", "today", "NaT"])
def test_invalid_dates_are_unreadable(cell: str) -> None:
    assert read(text(cell, "2026-01-31"), "datetime64[ns]") == ([None, pd.Timestamp("2026-01-31")], [True, False])


def test_dates_of_mixed_time_zones_and_lengths_are_read() -> None:
    cells = read(text("2026-01-31", "2026-01-31T01:00:00+02:00", "2026-01-31 01:00"), "datetime64[ns]")[0]
    assert cells == [pd.Timestamp(date) for date in ("2026-01-31", "2026-01-30 23:00", "2026-01-31 01:00")]


def test_a_date_outside_the_range_of_nanoseconds_is_unreadable_from_any_raw_type() -> None:
    for raw in (text("9999-12-31", None), pd.Series(["9999-12-31", None], dtype="datetime64[s]")):
        assert read(raw, "datetime64[ns]") == ([None, None], [True, False])


@property_test
@given(st.lists(st.text(max_size=6), min_size=1, max_size=10))
def test_text_is_unchanged_unless_blank(cells: list[str]) -> None:
    assert read(text(*cells), "str") == ([cell if cell.strip() else None for cell in cells], [False] * len(cells))


# ---- missing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["str", "int64", "float64", "bool", "datetime64[ns]"])
@pytest.mark.parametrize("missing", ["", " ", "\t ", None, np.nan, pd.NA, pd.NaT])
def test_blanks_are_missing_and_not_unreadable(dtype: str, missing: object) -> None:
    assert read(pd.Series([missing, missing], dtype=object), dtype) == ([None, None], [False, False])


@pytest.mark.parametrize(
    ("dtype", "default", "cell"),
    [
        ("int64", 7, 7),
        ("float64", 0, 0.0),
        ("str", "none", "none"),
        ("bool", True, True),
        ("datetime64[ns]", "2026-01-31", pd.Timestamp("2026-01-31")),
    ],
)
def test_a_default_replaces_missing_cells_only(dtype: str, default: object, cell: object) -> None:
    column = Column(dtype=dtype, default=default, nullable=True)
    cells, unreadable = read_cells(text("", "?", None), column)
    readable = dtype == "str"
    assert [cells[0], cells[2]] == [cell, cell]
    assert cells[1] == "?" if readable else pd.isna(cells[1])
    assert unreadable.tolist() == [False, not readable, False]
    assert cells.drop(1).astype(final_dtype(column)).tolist() == [cell, cell]


# ---- other sources than text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        pd.Series([1, None, 3], dtype="category"),
        pd.Series(["1", None, "3"], dtype="category"),
        pd.Series([1.0, np.nan, 3.0]),
        pd.Series([1.0, np.nan, 3.0], dtype="float32"),
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1, None, 3], dtype="Float64"),
        pd.Series(["1", None, " 3"], dtype="string"),
        pd.Series(["1", " ", "3"], dtype="string[pyarrow]"),
        pd.Series(["1", None, "3"], dtype=pd.ArrowDtype(pa.string())),
        pd.Series([1, None, 3], dtype="int64[pyarrow]"),
        pd.Series([1, "", "3.0"], dtype=object),
        pd.Series([Decimal(1), None, Decimal("3.0")], dtype=object),
    ],
    ids=lambda raw: str(raw.dtype),
)
def test_numbers_are_read_equally_from_any_raw_type(raw: pd.Series) -> None:
    for dtype in ("int64", "float64"):
        assert read(raw, dtype) == ([1, None, 3], [False, False, False])


@pytest.mark.parametrize(
    "raw",
    [
        pd.Series([True, False]),
        pd.Series([True, False], dtype="boolean"),
        pd.Series([1, 0]),
        text("True", "no"),
        pd.Series(["true", "false"], dtype="category"),
        pd.Series([True, False], dtype="bool[pyarrow]"),
        pd.Series([True, False], dtype=object),
    ],
    ids=lambda raw: str(raw.dtype),
)
def test_booleans_are_read_equally_from_any_raw_type(raw: pd.Series) -> None:
    assert read(raw, "bool") == ([True, False], [False, False])


@pytest.mark.parametrize(
    "raw",
    [
        pd.to_datetime(pd.Series(["2026-01-31", None])),
        pd.to_datetime(pd.Series(["2026-01-31", None])).astype("datetime64[s]"),
        pd.to_datetime(pd.Series(["2026-01-31 01:00", None])).dt.tz_localize("Europe/Berlin"),
        pd.Series([datetime.date(2026, 1, 31), None], dtype=object),
        pd.Series([pd.Timestamp("2026-01-31"), pd.NaT], dtype=object),
        pd.Series([datetime.date(2026, 1, 31), None], dtype="date32[pyarrow]"),
    ],
    ids=lambda raw: str(raw.dtype),
)
def test_dates_are_read_equally_from_any_raw_type(raw: pd.Series) -> None:
    assert read(raw, "datetime64[ns]") == ([pd.Timestamp("2026-01-31"), None], [False, False])


@pytest.mark.parametrize("dtype", ["int64", "float64", "bool"])
def test_a_date_is_neither_a_number_nor_a_boolean(dtype: str) -> None:
    assert read(pd.to_datetime(pd.Series(["2026-01-31", None])), dtype) == ([None, None], [True, False])


@pytest.mark.parametrize("raw", [pd.Series([1, 0]), pd.Series([1.5, 0.0]), pd.Series([True, False])])
def test_a_number_is_not_a_date(raw: pd.Series) -> None:
    assert read(raw, "datetime64[ns]") == ([None, None], [True, True])


@property_test
@given(st.lists(st.none() | st.integers(LEAST, MOST), min_size=1, max_size=10))
def test_ids_keep_all_digits_next_to_missing_ids(ids: list[int | None]) -> None:
    wanted = [None if cell is None else str(cell) for cell in ids]
    for dtype in ("Int64", "int64[pyarrow]", object):
        assert read(pd.Series(ids, dtype=dtype), "str")[0] == wanted


def test_whole_floats_as_levels_have_no_decimals() -> None:
    assert read(pd.Series([1.0, 2.5, np.nan]), "str") == (["1", "2.5", None], [False] * 3)


# ---- pandas 3, and inputs left alone ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("newer_pandas")
def test_cells_are_read_equally_under_the_next_pandas() -> None:
    raw = pd.Series(["1", "", None, "x", "1.5"])
    assert read(raw, "int64") == ([1, None, None, None, None], [False, False, False, True, True])
    assert read(raw, "str") == (["1", None, None, "x", "1.5"], [False] * 5)
    assert read(raw, "float64", default=0, nullable=True)[0] == [1.0, 0.0, 0.0, None, 1.5]
    assert read(pd.Series(["yes", "0"]), "bool")[0] == [True, False]
    assert read(pd.Series(["2026-01-31"]), "datetime64[ns]")[0] == [pd.Timestamp("2026-01-31")]


@pytest.mark.usefixtures("newer_pandas")
def test_model_inputs_are_equal_under_the_next_pandas() -> None:
    contract = make_contract()
    customers = validate_table(raw_customers(20), contract).customers
    inputs = model_inputs(customers, contract)
    assert list(inputs.select_dtypes("float64").columns) == list(contract.numeric)
    assert all(isinstance(cell, str) for name in contract.categorical for cell in inputs[name])


@pytest.mark.parametrize("dtype", ["str", "int64", "float64", "bool", "datetime64[ns]"])
@pytest.mark.parametrize(
    "raw",
    [
        text("1", " ", None, "x"),
        pd.Series([1, 0]),
        pd.Series([1.0, np.nan]),
        pd.Series([True, False]),
        pd.Series(["1", " "], dtype="category"),
        pd.Series(["1", " "], dtype="string"),
    ],
    ids=lambda raw: str(raw.dtype),
)
def test_raw_cells_are_not_modified(raw: pd.Series, dtype: str) -> None:
    before = raw.copy(deep=True)
    cells, _ = read_cells(
        raw, Column(dtype=dtype, default={"str": "d", "datetime64[ns]": "2026-01-31", "bool": False}.get(dtype, 0))
    )
    cells.iloc[:] = None
    pd.testing.assert_series_equal(raw, before)


# ---- what a model takes ----------------------------------------------------------------------------------------------


def test_model_inputs_are_floats_then_levels_with_markers_for_missing_cells() -> None:
    contract = make_contract()
    raw = raw_customers(4)
    raw.loc[0, ["region", "calls", "total"]] = ""
    inputs = model_inputs(validate_table(raw, contract).customers, contract)
    assert list(inputs) == [*contract.numeric, *contract.categorical]
    assert {str(inputs[name].dtype) for name in contract.numeric} == {"float64"}
    assert math.isnan(inputs.loc[0, "calls"])
    assert inputs.loc[0, "total"] == 0
    assert inputs.loc[0, "region"] == ""
    assert set(inputs["lines"]) <= {"1", "2", "3"}
    assert set(inputs["paperless"]) <= {0.0, 1.0}


def test_the_inputs_of_a_row_do_not_depend_on_other_rows() -> None:
    contract = make_contract()
    raw = raw_customers(30)
    among = model_inputs(validate_table(raw, contract).customers, contract)
    for row in range(30):
        alone = model_inputs(validate_table(raw.iloc[[row]], contract).customers, contract)
        pd.testing.assert_frame_equal(alone, among.iloc[[row]].reset_index(drop=True))


def test_churned_is_one_for_the_positive_value() -> None:
    contract = make_contract()
    raw = raw_customers(40)
    label = churned(validate_table(raw, contract).customers, contract)
    assert label.tolist() == [int(cell == "Yes") for cell in raw["churn"]]
    assert label.dtype == "int64"
    assert label.name == "churned"


# ---- digest ----------------------------------------------------------------------------------------------------------


def test_a_table_digest_depends_on_content_and_not_on_the_index() -> None:
    table = raw_customers(10)
    assert table_digest(table) == table_digest(table.copy()) == table_digest(table.set_index(pd.Index(range(10, 20))))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(age=["1", *table["age"][1:]]),
        lambda table: table.iloc[::-1],
        lambda table: table.iloc[:-1],
        lambda table: table[table.columns[::-1]],
        lambda table: table.rename(columns={"age": "years"}),
        lambda table: table.drop(columns="age"),
    ],
    ids=["a cell", "row order", "a row less", "column order", "a name", "a column less"],
)
def test_a_table_digest_changes_with(change: object) -> None:
    table = raw_customers(10)
    assert table_digest(change(table)) != table_digest(table)  # type: ignore[operator]


def test_text_from_a_database_is_read_like_text_from_a_file() -> None:
    cells = ["north", None, " ", "north", "007", "1.5"]
    column = Column(dtype="str", nullable=True)
    expected = read_cells(pd.Series(cells, dtype=object), column)
    found = read_cells(pd.Series(cells, dtype=pd.StringDtype("pyarrow")), column)
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_series_equal(one, other)


def test_a_raw_digest_depends_on_the_text_of_cells_and_not_on_their_type() -> None:
    text = pd.DataFrame({"n": ["1", "", "3"], "b": ["True", "False", ""], "f": ["1.0", "2.5", ""]}, dtype=object)
    typed = pd.DataFrame({"n": pd.array([1, None, 3], "Int64"), "b": pd.array([True, False, None], "boolean")})
    typed["f"] = [1.0, 2.5, None]
    assert raw_digest(typed) == raw_digest(text) == table_digest(text)
    assert raw_digest(typed.assign(n=7)) != raw_digest(text)
