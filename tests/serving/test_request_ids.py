import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from churn_pipeline.serving.request_ids import REQUEST_ID, RequestId


@given(st.binary(max_size=80) | st.from_regex(REQUEST_ID, fullmatch=True) | st.none())
def test_the_service_always_has_an_id_of_its_own(header: bytes | None) -> None:
    made = RequestId.make(header)
    assert len(made.own) == 32
    assert int(made.own, 16) >= 0
    if header is not None and REQUEST_ID.fullmatch(header):
        assert made == made.caller == header.decode()
        assert made.facts == {"request_id": made.own, "caller_request_id": header.decode()}
    else:
        assert made == made.own
        assert made.facts == {"request_id": made.own}


@pytest.mark.parametrize("to_text", [to_json, json.dumps])
def test_an_id_is_written_as_a_text(to_text: object) -> None:
    assert callable(to_text)
    assert json.loads(to_text({"request_id": RequestId.make(b"run-7")})) == {"request_id": "run-7"}
