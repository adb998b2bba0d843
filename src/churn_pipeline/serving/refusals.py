"""Every refusal of the service: its code, its status and its meaning.

Clients may branch on the code, which stays the same between versions. The text in ``error`` may change.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from churn_pipeline.serving.requests import Problem, RequestError

RETRY_SECONDS = "1"  # Retry-After of a busy service
TOO_BUSY = "The service is busy. Try again later."


@dataclass(frozen=True)
class RefusalCode:
    """Status of the answers with this code, and what the code means."""

    status: int
    meaning: str


CODES: Mapping[str, RefusalCode] = {
    "invalid_json": RefusalCode(400, "The body is not valid JSON."),
    "missing_key": RefusalCode(401, "The path needs an API key, and the request has none."),
    "malformed_key": RefusalCode(401, "The header `Authorization` is not `Bearer <key>`, or it is repeated."),
    "unknown_key": RefusalCode(401, "The API key is not valid."),
    "unknown_path": RefusalCode(404, "The path does not exist, or a setting disables it."),
    "method_not_allowed": RefusalCode(405, "The path does not accept this method."),
    "slow_body": RefusalCode(408, "The request body arrived too slowly; the connection is closed."),
    "body_too_large": RefusalCode(413, "The body has too many bytes."),
    "too_many_customers": RefusalCode(413, "The request has too many customers."),
    "unsupported_media_type": RefusalCode(415, "The body is not `application/json` in UTF-8."),
    "unsupported_encoding": RefusalCode(415, "The body is compressed."),
    "invalid_customer": RefusalCode(422, "The request violates the contract."),
    "rate_limited": RefusalCode(429, "Too many requests with this API key."),
    "address_rate_limited": RefusalCode(429, "Too many requests without a valid API key from this address."),
    "internal_error": RefusalCode(500, "The service failed. Its log has the error under the request id."),
    "busy": RefusalCode(503, "The service has no capacity for this request at the moment."),
    "draining": RefusalCode(503, "The service is shutting down."),
    "too_slow": RefusalCode(504, "The request took longer than the time limit."),
}
REQUEST_ERRORS: Mapping[int, str] = {400: "invalid_json", 413: "too_many_customers", 422: "invalid_customer"}


class Refusal(Exception):  # noqa: N818 - an HTTP answer, not a fault of the program
    """An answer other than the one that the caller wants.

    Parameters
    ----------
    code
        A code in `CODES`. Logs show it as the outcome.
    message
        What is wrong and how to fix it, for the caller.
    **headers
        Further headers of the answer, with underscores for dashes.

    Attributes
    ----------
    problems, problem_count
        The first violated rules of the contract, and their total number.
    """

    def __init__(self, code: str, message: str, **headers: str) -> None:
        self.code = code
        self.status = CODES[code].status
        self.message = message
        self.problems: Sequence[Problem] = ()
        self.problem_count = 0
        self.headers = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        super().__init__(message)

    def content(self, request_id: str) -> bytes:
        """Body of the answer, as JSON."""
        content: dict[str, Any] = {"code": self.code, "error": self.message, "request_id": request_id}
        if self.problems:
            content["problems"] = [
                {"row": problem.row, "field": problem.field, "rule": problem.rule} for problem in self.problems
            ]
            content["problem_count"] = self.problem_count
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def invalid(error: RequestError) -> Refusal:
    """The refusal of a request that is invalid."""
    refusal = Refusal(REQUEST_ERRORS[error.status], str(error))
    refusal.problems, refusal.problem_count = error.problems, error.count
    return refusal


def busy(message: str = TOO_BUSY, **headers: str) -> Refusal:
    """The refusal of a request for which there is no capacity."""
    return Refusal("busy", message, Retry_After=RETRY_SECONDS, **headers)
