"""Every answer that is not a success: its code, status and meaning, and the step of the guard that gives it.

The guard, the OpenAPI document and the reference page all read this table. Codes are part of the interface: they do not change.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Step = Literal["path", "method", "key", "capacity", "body", "request", "work", "ready"]
Kind = Literal["probe", "metrics", "page", "model", "scoring"]
# The steps of each kind of route that can refuse a request. A setting can switch metrics and pages off, or ask for a key.
STEPS: Mapping[Kind, tuple[Step, ...]] = {
    "probe": ("method", "work", "ready"),
    "metrics": ("path", "method", "key", "capacity", "work"),
    "page": ("path", "method", "key", "capacity", "work"),
    "model": ("method", "key", "capacity", "work"),
    "scoring": ("method", "key", "capacity", "body", "request", "work"),
}
NEEDS_KEY: tuple[Kind, ...] = ("model", "scoring")  # whatever the settings of metrics and pages say


class RefusalCode(NamedTuple):
    """A refusal's HTTP status, the step that it comes from, its meaning, and the headers it adds to the answer."""

    status: int
    step: Step
    meaning: str
    headers: tuple[str, ...] = ()


CODES: Mapping[str, RefusalCode] = {
    "unknown_path": RefusalCode(404, "path", "The path does not exist, or a setting disables it."),
    "method_not_allowed": RefusalCode(405, "method", "The path does not accept this method.", ("Allow",)),
    "missing_key": RefusalCode(401, "key", "The path needs an API key.", ("WWW-Authenticate",)),
    "malformed_key": RefusalCode(
        401, "key", "The header `Authorization` is not `Bearer` and a key.", ("WWW-Authenticate",)
    ),
    "unknown_key": RefusalCode(401, "key", "The API key is not valid.", ("WWW-Authenticate",)),
    "rate_limited": RefusalCode(429, "key", "Too many requests with this API key.", ("Retry-After",)),
    "address_rate_limited": RefusalCode(
        429, "key", "Too many requests from this address without a valid API key.", ("Retry-After",)
    ),
    "busy": RefusalCode(503, "capacity", "The service is busy. Try again later.", ("Retry-After",)),
    "unsupported_media_type": RefusalCode(415, "body", "The body is not `application/json` in UTF-8."),
    "unsupported_encoding": RefusalCode(415, "body", "The body is compressed."),
    "body_too_large": RefusalCode(413, "body", "The body has too many bytes."),
    "slow_body": RefusalCode(408, "body", "The body arrived too slowly; the connection is closed."),
    "invalid_json": RefusalCode(400, "request", "The body is not valid JSON."),
    "too_many_customers": RefusalCode(413, "request", "The request has too many customers."),
    "invalid_customer": RefusalCode(
        422,
        "request",
        "The request violates the contract. The answer lists row, field and rule of each problem, never the value.",
    ),
    "too_slow": RefusalCode(504, "work", "The request took longer than the time limit."),
    "internal_error": RefusalCode(500, "work", "The service failed. Its log has the error under the request id."),
    "draining": RefusalCode(503, "ready", "The service is shutting down."),
}


def codes_of(kind: Kind) -> tuple[str, ...]:
    """The codes that a route of a kind can answer with."""
    return tuple(code for code, of in CODES.items() if of.step in STEPS[kind])


def refusals_table() -> str:
    """All codes with status and meaning, as a Markdown table."""
    rows = ["| code | status | meaning |", "|---|---|---|"]
    rows += [f"| `{code}` | {of.status} | {of.meaning} |" for code, of in sorted(CODES.items())]
    return "\n".join(rows)
