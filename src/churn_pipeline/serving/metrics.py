"""The service's Prometheus metrics, shown on ``/metrics`` together with BentoML's own.

The workers write their values to files, and ``/metrics`` adds them up (prometheus_client's multi-process mode), so each metric
covers all workers. Label values come from this program, the contract and the bundle, never from a caller.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Protocol

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
# The first bundle, the second one, and the second one where its predictions are not returned.
Role = Literal["champion", "challenger", "shadow"]
# Meaning and labels of each counter.
COUNTERS: Mapping[str, tuple[str, ...]] = {
    "churn_predictions": (
        "Customers scored, by decision. Predictions of the role shadow are not returned.",
        "decision",
        "model_version",
        "role",
    ),
    "churn_shadow_rows": ("Customers for the second bundle in the shadow, by outcome.", "outcome"),
    "churn_rollouts": ("Changes of the served bundles, by outcome.", "outcome"),
    "churn_refusals": ("Violated rules of the contract, by field and rule.", "field", "rule"),
    "churn_authentication_failures": ("Requests without a valid API key to a path that needs one.", "reason"),
    "churn_rate_limited": ("Requests refused because of a rate limit.", "limit"),
    "churn_shed": ("Requests refused because the queue was full.",),
    "churn_timeouts": ("Requests over the time limit, by stage.", "at"),
    "churn_rate_limit_store_failures": ("Requests allowed uncounted because the rate limit store failed or was slow.",),
    "churn_prediction_log_rows": (
        "Customers of answered requests, by outcome of their line in the prediction log.",
        "outcome",
    ),
    "churn_log_lines_dropped": ("Log lines that were not written.",),
}
# Which value counts if several processes have one, meaning and labels of each gauge.
MODEL_LABELS = ("table", "model_name", "model_version", "run_id", "commit", "model_digest", "threshold")
GAUGES: Mapping[str, tuple[Literal["max", "mostrecent"], str, tuple[str, ...]]] = {
    "churn_model_info": (
        "mostrecent",
        "1 for the served model, which the labels describe; 0 for models that were served before.",
        MODEL_LABELS,
    ),
    "churn_model_loaded_timestamp_seconds": ("max", "Unix time at which a worker last loaded the model.", ()),
    "churn_seconds_since_load": ("mostrecent", "Seconds since the worker that answers /metrics loaded the model.", ()),
}


class Problem(Protocol):
    """A violated rule of the contract, and its field."""

    @property
    def field(self) -> str | None:
        """A column of the contract, or the caller's text."""

    @property
    def rule(self) -> str:
        """The rule, in words of the contract."""


class _BatchHistogram(Histogram):
    """A histogram that counts many values in one call; 1,000 single calls take 2 ms."""

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
    """All metrics of the service.

    Parameters
    ----------
    registry
        Registry of this process; a new one by default. BentoML's ``/metrics`` reads the workers' files and does not use it.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._counters = {
            name: Counter(name, meaning, labels, registry=self.registry)
            for name, (meaning, *labels) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(name, meaning, labels, multiprocess_mode=mode, registry=self.registry)
            for name, (mode, meaning, labels) in GAUGES.items()
        }
        self.probabilities = _BatchHistogram(
            "churn_probability", "Churn probabilities served.", buckets=PROBABILITIES, registry=self.registry
        )
        self._rows = Histogram(
            "churn_request_rows", "Customers per answered request.", buckets=ROWS, registry=self.registry
        )
        self._seconds = Histogram(
            "churn_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ["path", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._served: Gauge | None = None
        self._loaded: float | None = None
        self._fields: frozenset[str] = frozenset()

    def model_loaded(self, manifest: Manifest, fields: Collection[str] = ()) -> None:
        """Record which model is served and since when.

        Parameters
        ----------
        manifest
            Manifest of the served bundle.
        fields
            Columns of the contract. Violations in any other field are counted as ``other``.
        """
        self._fields = frozenset(fields)
        if self._served is not None:
            self._served.set(0)
        self._served = self._gauges["churn_model_info"].labels(
            manifest.table,
            manifest.model_name,
            manifest.model_version,
            manifest.run_id,
            manifest.commit,
            manifest.model_digest,
            repr(manifest.threshold),
        )
        self._served.set(1)
        self._loaded = time.time()
        self._gauges["churn_model_loaded_timestamp_seconds"].set(self._loaded)
        self.refresh()

    def refresh(self) -> None:
        """Update the metrics that change with time; call it before ``/metrics`` is read."""
        if self._loaded is not None:
            self._gauges["churn_seconds_since_load"].set(time.time() - self._loaded)

    def predicted(
        self,
        probabilities: npt.NDArray[np.float64],
        contact: npt.NDArray[np.bool_],
        model_version: str,
        role: Role = "champion",
    ) -> None:
        """Count scored customers.

        Parameters
        ----------
        probabilities : ndarray of shape (rows,), float64
            Churn probabilities.
        contact : ndarray of shape (rows,), bool
            Whether to contact each customer.
        model_version, role
            The model that scored them, and its role. Probabilities in the shadow are not served, so only their number counts.
        """
        predictions, contacted = self._counters["churn_predictions"], int(np.count_nonzero(contact))
        if contacted:
            predictions.labels("contact", model_version, role).inc(contacted)
        if contacted < len(contact):
            predictions.labels("no_contact", model_version, role).inc(len(contact) - contacted)
        if role != "shadow":
            self.probabilities.observe_many(probabilities)

    def request_scored(self, rows: int) -> None:
        """Count a request whose customers were scored."""
        self._rows.observe(rows)

    def shadowed(self, outcome: str, rows: int) -> None:
        """Count customers for the shadow: ``scored``, ``dropped`` (too many waited), ``failed`` or ``lost`` at the end."""
        self._counters["churn_shadow_rows"].labels(outcome).inc(rows)

    def rollout_ended(self, outcome: str) -> None:
        """Count a change of bundles that all workers made (``switched``) or none (``refused``)."""
        self._counters["churn_rollouts"].labels(outcome).inc()

    def refused(self, problems: Iterable[Problem]) -> None:
        """Count the rules that a request violates."""
        for problem in problems:
            field = problem.field if problem.field in self._fields else OTHER
            self._counters["churn_refusals"].labels(field, problem.rule).inc()

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a finished request; ``path`` is a route's name or ``other``."""
        self._seconds.labels(path, str(status)).observe(seconds)

    def unauthenticated(self, reason: str) -> None:
        """Count a request without a valid key."""
        self._counters["churn_authentication_failures"].labels(reason).inc()

    def rate_limited(self, limit: str) -> None:
        """Count a request over a rate limit, ``key`` or ``address``."""
        self._counters["churn_rate_limited"].labels(limit).inc()

    def shed(self) -> None:
        """Count a request refused because the queue was full."""
        self._counters["churn_shed"].inc()

    def timed_out(self, stage: str) -> None:
        """Count a request over the time limit, by stage: ``body``, ``queue`` or ``work``."""
        self._counters["churn_timeouts"].labels(stage).inc()

    def store_failed(self) -> None:
        """Count a request that the rate limit store could not count."""
        self._counters["churn_rate_limit_store_failures"].inc()

    def logged(self, outcome: str, rows: int) -> None:
        """Count customers by the outcome of their line in the prediction log."""
        self._counters["churn_prediction_log_rows"].labels(outcome).inc(rows)

    def lines_dropped(self, lines: int) -> None:
        """Count log lines that were not written."""
        self._counters["churn_log_lines_dropped"].inc(lines)
