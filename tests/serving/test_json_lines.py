"""Any value becomes one line of ASCII that reads back as the same value."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from churn_pipeline.serving.json_lines import json_line
from churn_pipeline.serving.request_ids import RequestId

any_text = st.text(st.characters(exclude_categories=()))  # halves of surrogate pairs too
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text


@given(st.dictionaries(any_text, values | st.dictionaries(any_text, values), max_size=5))
def test_a_value_is_one_line_and_reads_back_unchanged(value: dict[str, Any]) -> None:
    line = json_line(value)
    assert len(line.decode("ascii").splitlines()) == 1
    assert json.loads(line) == value


def test_numbers_of_numpy_and_request_ids_are_written() -> None:
    value = {"a": np.float32(2.5), "b": np.int64(3), "c": RequestId.of("one")}
    assert json.loads(json_line(value)) == {"a": 2.5, "b": 3, "c": "one"}


@pytest.mark.parametrize("text", ["plain", "\u2028"])
@pytest.mark.parametrize("number", [math.nan, math.inf, np.float64("nan"), np.float32("inf")])
def test_a_number_that_json_does_not_know_is_null(text: str, number: float) -> None:
    assert json.loads(json_line({text: number})) == {text: None}


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        json_line({"a": object()})
