"""What the service counts, for Prometheus, beside BentoML's own metrics on ``/metrics``.

BentoML's workers write their figures to files that are put together when they are asked for (prometheus_client's
multi-process mode), so every figure here is of all workers. Labels take their values from this program, the contract and the
bundle, never from a caller.
"""

import time
from collections.abc import Collection, Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from churn_pipeline.serving.bundle import Manifest

SECONDS = (
    0.00025,
    0.0005,
    0.00075,
    0.001,
    0.0015,
    0.002,
    0.003,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
PROBABILITIES = tuple(step / 20 for step in range(1, 21))
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
OTHER = "other"


class Problem(Protocol):
    """What was wrong with a request: the rule that was broken, and the field."""

    @property
    def field(self) -> str | None:
        """The contract's column, or what the caller wrote."""

    @property
    def rule(self) -> str:
        """The rule, in the contract's words."""


class _Probabilities(Histogram):
    """A histogram that takes many values at a time: one by one, 1,000 of them take 2 ms."""

    def observe_many(self, values: npt.NDArray[np.float64]) -> None:
        """Count values."""
        if len(values) == 1:
            self.observe(float(values[0]))
            return
        counts = np.bincount(np.searchsorted(self._upper_bounds, values), minlength=len(self._buckets))
        self._sum.inc(float(values.sum()))
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(int(count))


class Metrics:
    """Everything that is counted.

    Parameters
    ----------
    registry
        Where the figures are kept within one process; one of their own unless given. What BentoML shows on ``/metrics``
        is read from the workers' files and does not depend on it.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._predictions = Counter(
            "churn_predictions", "Customers scored, by decision.", ["decision"], registry=self.registry
        )
        self._contacted = self._predictions.labels("contact")
        self._left_alone = self._predictions.labels("no_contact")
        self._probabilities = _Probabilities(
            "churn_probability", "Churn probabilities served.", buckets=PROBABILITIES, registry=self.registry
        )
        self._rows = Histogram(
            "churn_request_rows", "Customers in a request that was answered.", buckets=ROWS, registry=self.registry
        )
        self._refusals = Counter(
            "churn_refusals",
            "Rules that requests broke, by the contract's field.",
            ["field", "rule"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "churn_request_seconds",
            "Time of a request from its head to the end of its answer.",
            ["path", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._unauthenticated = Counter(
            "churn_authentication_failures",
            "Requests without a valid key where one is needed.",
            ["reason"],
            registry=self.registry,
        )
        self._limited = Counter(
            "churn_rate_limited", "Requests beyond a rate limit.", ["limit"], registry=self.registry
        )
        self._shed = Counter("churn_shed", "Requests refused because too many were in work.", registry=self.registry)
        self._timeouts = Counter(
            "churn_timeouts", "Requests that took too long, by what they were at.", ["at"], registry=self.registry
        )
        self._store_failures = Counter(
            "churn_rate_limit_store_failures",
            "Requests let through uncounted, as the rate limits' store failed.",
            registry=self.registry,
        )
        self._logged = Counter(
            "churn_prediction_log_rows", "Customers by what became of their line.", ["outcome"], registry=self.registry
        )
        self._lines_dropped = Counter(
            "churn_log_lines_dropped", "Lines of logs that were not written.", registry=self.registry
        )
        self._model = Gauge(
            "churn_model_info",
            "1, with what the served model is as labels.",
            ["table", "model_name", "model_version", "run_id", "commit", "model_digest", "threshold"],
            multiprocess_mode="max",
            registry=self.registry,
        )
        self._loaded_at = Gauge(
            "churn_model_loaded_timestamp_seconds",
            "When a worker last loaded the model.",
            multiprocess_mode="max",
            registry=self.registry,
        )
        self._since_load = Gauge(
            "churn_seconds_since_load",
            "Time since the worker that shows these figures loaded the model.",
            multiprocess_mode="mostrecent",
            registry=self.registry,
        )
        self._loaded: float | None = None
        self._fields: frozenset[str] = frozenset()

    def loaded(self, manifest: Manifest, fields: Collection[str] = ()) -> None:
        """Tell which model is served, now that it is.

        Parameters
        ----------
        manifest
            The bundle's.
        fields
            The contract's columns: refusals of any other field are counted as ``other``.
        """
        self._fields = frozenset(fields)
        self._model.labels(
            manifest.table,
            manifest.model_name,
            manifest.model_version,
            manifest.run_id,
            manifest.commit,
            manifest.model_digest,
            repr(manifest.threshold),
        ).set(1)
        self._loaded = time.time()
        self._loaded_at.set(self._loaded)
        self.asked()

    def asked(self) -> None:
        """Bring up to date what changes by itself: to be called when the figures are asked for."""
        if self._loaded is not None:
            self._since_load.set(time.time() - self._loaded)

    def predicted(self, probabilities: npt.NDArray[np.float64], contact: npt.NDArray[np.bool_]) -> None:
        """Count an answered request's customers.

        Parameters
        ----------
        probabilities : ndarray of shape (rows,), float64
            Churn probabilities.
        contact : ndarray of shape (rows,), bool
            Whether each is to be contacted.
        """
        contacted = int(np.count_nonzero(contact))
        if contacted:
            self._contacted.inc(contacted)
        if contacted < len(contact):
            self._left_alone.inc(len(contact) - contacted)
        self._probabilities.observe_many(probabilities)
        self._rows.observe(len(probabilities))

    def refused(self, problems: Iterable[Problem]) -> None:
        """Count the rules that a request broke."""
        for problem in problems:
            field = problem.field if problem.field in self._fields else OTHER
            self._refusals.labels(field, problem.rule).inc()

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request. ``path`` is one of the paths that the service knows, or ``other``."""
        self._seconds.labels(path, str(status)).observe(seconds)

    def unauthenticated(self, reason: str) -> None:
        """Count a request without a valid key."""
        self._unauthenticated.labels(reason).inc()

    def rate_limited(self, limit: str) -> None:
        """Count a request beyond a limit, ``key`` or ``address``."""
        self._limited.labels(limit).inc()

    def shed(self) -> None:
        """Count a request that found too many in work."""
        self._shed.inc()

    def timed_out(self, at: str) -> None:
        """Count a request that took too long ``at`` the ``limits``' store, its ``body``, the ``queue`` or its ``work``."""
        self._timeouts.labels(at).inc()

    def store_failed(self) -> None:
        """Count a request that could not be counted."""
        self._store_failures.inc()

    def logged(self, outcome: str, rows: int) -> None:
        """Count customers by what became of their line in the prediction log."""
        self._logged.labels(outcome).inc(rows)

    def lines_dropped(self, lines: int) -> None:
        """Count lines of logs that were not written."""
        self._lines_dropped.inc(lines)
