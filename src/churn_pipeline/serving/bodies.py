"""Reading request bodies, within a time limit and a budget of bytes.

Slow senders take memory and connections, but no turn: a request waits for one only when its body is complete. Each key may
have a limited number of incomplete bodies and half of the bytes, so that no key uses up what the others need.
"""

import asyncio
import re

from starlette.types import Receive

from churn_pipeline.serving.refusals import Refusal, busy
from churn_pipeline.serving.request_context import ClientDisconnected, RequestContext
from churn_pipeline.serving.settings import Settings

JSON_TYPE = re.compile(rb"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
CLOSE = {"Connection": "close"}  # the caller would go on sending


class Bodies:
    """The request bodies of one worker.

    Parameters
    ----------
    settings
        The service's settings: sizes, numbers and the time limit.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_body_bytes
        self._max_unread = settings.unread_bodies
        self._budget = settings.max_bytes_in_flight
        self._share = max(settings.max_body_bytes, settings.max_bytes_in_flight // 2)
        self._seconds = min(settings.body_seconds, settings.request_seconds)
        self.unread: dict[str, int] = {}  # number of incomplete bodies by caller
        self.held: dict[str, int] = {}  # bytes by caller, complete bodies included
        self.bytes = 0

    async def read(self, context: RequestContext, receive: Receive) -> bytes:
        """Read the body of a request; its bytes count until `release`.

        Raises
        ------
        Refusal
            415, 413 and 408 as in `churn_pipeline.serving.refusals`; 503 if the worker or this caller has too many bytes.
        ClientDisconnected
            If the client closes the connection first.
        """
        self._check_headers(context)
        caller = context.caller
        if self.unread.get(caller, 0) >= self._max_unread:
            raise busy("Too many requests of this caller are still sending their bodies.", **CLOSE)
        self.unread[caller] = self.unread.get(caller, 0) + 1
        deadline = asyncio.timeout(self._seconds)
        try:
            async with deadline:
                return await self._receive_all(context, receive)
        except TimeoutError:
            if deadline.expired():
                raise Refusal("slow_body", "The request body arrived too slowly.", **CLOSE) from None
            raise
        finally:
            _subtract(self.unread, caller, 1)

    def release(self, context: RequestContext) -> None:
        """Stop counting the bytes of a request."""
        if context.body_bytes:
            self.bytes -= context.body_bytes
            _subtract(self.held, context.caller, context.body_bytes)
            context.body_bytes = 0

    async def _receive_all(self, context: RequestContext, receive: Receive) -> bytes:
        message = await receive()
        parts: list[bytes] = []
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            part: bytes = message.get("body", b"")
            self._count(context, len(part))
            if not message.get("more_body", False):
                return b"".join((*parts, part)) if parts else part
            parts.append(part)
            message = await receive()

    def _count(self, context: RequestContext, size: int) -> None:
        context.body_bytes += size
        self.bytes += size
        held = self.held[context.caller] = self.held.get(context.caller, 0) + size
        if context.body_bytes > self._max_bytes:
            raise self._too_large()
        if self.bytes > self._budget or held > self._share:
            raise busy("The service has no memory for this body at the moment. Try again later.", **CLOSE)

    def _check_headers(self, context: RequestContext) -> None:
        if context.has(b"content-encoding"):
            raise Refusal("unsupported_encoding", "Compressed bodies are not accepted. Send plain JSON.")
        kind = context.header(b"content-type") or b""
        if kind != b"application/json" and not JSON_TYPE.fullmatch(kind.strip()):
            message = "The body must be JSON with the header Content-Type: application/json."
            raise Refusal("unsupported_media_type", message)
        declared = context.header(b"content-length") or b"0"
        if not declared.isdigit() or len(declared) > 18 or int(declared) > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        message = f"The body is too large: at most {self._max_bytes:,} bytes are accepted."
        return Refusal("body_too_large", message, **CLOSE)


def _subtract(counts: dict[str, int], caller: str, number: int) -> None:
    left = counts[caller] - number
    if left:
        counts[caller] = left
    else:
        del counts[caller]
