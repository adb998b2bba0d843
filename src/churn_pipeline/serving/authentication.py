"""API keys and rate limits: which callers are admitted, and the audit trail.

A valid key is never refused because of what others do at its address. Only invalid attempts count for an address; above its
limit they get 429 instead of 401. A key has 256 random bits, so guessing needs no other defence.
"""

import logging

from churn_pipeline.serving import logs
from churn_pipeline.serving.keys import KeyRing
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.rate_limits import rate_limits
from churn_pipeline.serving.refusals import Refusal
from churn_pipeline.serving.request_context import RequestContext
from churn_pipeline.serving.settings import Settings

NO_KEY = "This path needs a valid API key. Send the header Authorization: Bearer <key>."


class Authentication:
    """The keys and rate limits of one worker.

    Parameters
    ----------
    settings
        The service's settings.
    metrics
        The service's metrics.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.keys = KeyRing(settings.keys, settings.keys_file)
        self._metrics = metrics
        self._per_key, self._per_address = rate_limits(settings, metrics.store_failed)

    async def admit(self, context: RequestContext) -> None:
        """Admit a caller with a valid key that is within its rate limit.

        Raises
        ------
        Refusal
            401 without a valid key; 429 above a rate limit.
        """
        scheme, _, key = (context.header(b"authorization") or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise await self._refused(context, "malformed" if context.has(b"authorization") else "missing")
        name = self.keys.name_of(key.strip())
        if name is None:
            raise await self._refused(context, "unknown")
        context.key_name = context.caller = context.scope["state"]["key_name"] = name
        if not await self._per_key.hit(name):
            self._metrics.rate_limited("key")
            _audit(context, "refused", "rate_limited")
            seconds = str(await self._per_key.retry_seconds(name))
            raise Refusal("rate_limited", "Too many requests with this API key.", Retry_After=seconds)
        _audit(context, "granted", "key")

    async def _refused(self, context: RequestContext, reason: str) -> Refusal:
        self._metrics.unauthenticated(reason)
        network = context.network
        if await self._per_address.hit(network):
            _audit(context, "refused", f"{reason}_key")
            return Refusal(f"{reason}_key", NO_KEY, WWW_Authenticate="Bearer")
        self._metrics.rate_limited("address")
        _audit(context, "refused", "address_rate_limited")
        message = "Too many requests without a valid API key from this address."
        seconds = str(await self._per_address.retry_seconds(network))
        return Refusal("address_rate_limited", message, Retry_After=seconds)


def _audit(context: RequestContext, outcome: str, reason: str) -> None:
    facts = {
        **context.id.facts,
        "outcome": outcome,
        "reason": reason,
        "key": context.key_name,
        "method": context.method,
        "path": context.path,
        "address": context.address,
    }
    if context.trace_id:
        facts["trace_id"] = context.trace_id
    logs.log(logs.AUDIT, logging.INFO, "access", facts)
