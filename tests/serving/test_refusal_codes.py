"""The table of error codes, and the guard's answers compared with it."""

import json
from typing import Any

import pytest
from tests.serving.test_guards import BEARER, JSON, RecordingApp, Service

from churn_pipeline.serving.refusal_codes import CODES, STEPS, codes_of, refusals_table
from churn_pipeline.serving.request_context import ROUTES

REQUESTS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "method_not_allowed": ({}, {"method": "PUT"}),
    "missing_key": ({}, {"headers": JSON}),
    "malformed_key": ({}, {"headers": {"authorization": "Basic a", **JSON}}),
    "unknown_key": ({}, {"headers": {"authorization": "Bearer guess", **JSON}}),
    "unsupported_media_type": ({}, {"headers": {**BEARER, "content-type": "text/csv"}}),
    "unsupported_encoding": ({}, {"headers": {**BEARER, **JSON, "content-encoding": "gzip"}}),
    "body_too_large": ({"max_body_bytes": "1"}, {}),
    "slow_body": ({"request_seconds": "0.1"}, {"body": [b"x"] * 1_000, "pause": 0.02}),
}


@pytest.mark.parametrize("code", REQUESTS)
def test_a_refusal_has_the_code_and_status_of_the_table(code: str) -> None:
    settings, request = REQUESTS[code]
    answer = Service(**settings).request(**request)
    assert json.loads(answer.body)["code"] == code
    assert answer.status == CODES[code].status
    assert code in codes_of(ROUTES["/predict"].kind)
    assert {name.lower() for name in CODES[code].headers} <= set(answer.headers)


def test_a_failure_and_a_slow_application_have_codes_of_every_kind() -> None:
    failed = Service(RecordingApp(raises=ValueError())).request()
    slow = Service(RecordingApp(seconds=5), request_seconds="0.1").request()
    for answer, code in ((failed, "internal_error"), (slow, "too_slow")):
        assert (json.loads(answer.body)["code"], answer.status) == (code, CODES[code].status)
        assert all(code in codes_of(kind) for kind in STEPS)


def test_a_disabled_path_is_unknown() -> None:
    answer = Service(metrics="off").request("/metrics", "GET", headers={})
    assert json.loads(answer.body)["code"] == "unknown_path"
    assert "unknown_path" in codes_of("metrics")


def test_every_step_belongs_to_a_kind_and_every_code_is_in_the_documentation() -> None:
    assert {code.step for code in CODES.values()} == {step for steps in STEPS.values() for step in steps}
    assert all(f"| `{code}` | {of.status} |" in refusals_table() for code, of in CODES.items())
