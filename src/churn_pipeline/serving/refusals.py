"""The exception behind every refusal. `churn_pipeline.serving.refusal_codes` lists the codes."""

import json
from collections.abc import Sequence
from typing import Any

from churn_pipeline.serving.refusal_codes import CODES
from churn_pipeline.serving.requests import Problem, RequestError

RETRY_SECONDS = "1"  # Retry-After of a busy service
TOO_BUSY = "The service is busy. Try again later."


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
    refusal = Refusal(error.code, str(error))
    refusal.problems, refusal.problem_count = error.problems, error.count
    return refusal


def busy(message: str = TOO_BUSY, **headers: str) -> Refusal:
    """The refusal of a request for which there is no capacity."""
    return Refusal("busy", message, Retry_After=RETRY_SECONDS, **headers)
