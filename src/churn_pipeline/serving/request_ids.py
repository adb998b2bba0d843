"""Ids of a request: one that the service makes, and the caller's own.

A caller may send ``X-Request-ID`` to find its request again. The answer and its header repeat that id if it is well-formed. But
a caller can send any id, and the same one twice. The service therefore makes an id for every request: only that one decides
whether the request is in the sample of the prediction log, and log lines have it as ``request_id``. They have the caller's as
``caller_request_id``.
"""

import random
import re
from typing import Self

RANDOM = random.Random()  # noqa: S311 - ids are not secret, and os.urandom takes longer than a prediction
REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class RequestId(str):
    """The id in the answer to a request: the caller's if it sent a well-formed one, otherwise the service's.

    Attributes
    ----------
    own : str
        The id that the service made.
    caller : str or None
        The caller's id.
    """

    __slots__ = ("caller", "own")
    own: str
    caller: str | None

    @classmethod
    def of(cls, own: str, caller: str | None = None) -> Self:
        """Combine both ids."""
        combined = cls(own if caller is None else caller)
        combined.own, combined.caller = own, caller
        return combined

    @classmethod
    def make(cls, header: bytes | None) -> Self:
        """Make the id of a request from the value of its header ``X-Request-ID``."""
        own = f"{RANDOM.getrandbits(128):032x}"
        return cls.of(own, header.decode() if header and REQUEST_ID.fullmatch(header) else None)

    @property
    def facts(self) -> dict[str, str]:
        """The ids as facts of a log line."""
        ids = {"request_id": self.own}
        if self.caller is not None:
            ids["caller_request_id"] = self.caller
        return ids
