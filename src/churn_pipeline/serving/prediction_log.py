"""The prediction log for monitoring: one JSON line per scored customer, in files that only their owner can read.

This is the only place where customer data is written. A customer's id is stored only as its HMAC-SHA256 under a secret from
the settings, so that outcomes can be joined later. Each worker writes its own files,
``predictions-<UTC time>-<process>-<random>.jsonl``. A new file starts at a maximum size or after a day. Files are deleted at a
maximum age, also when nothing is written, and the oldest ones if all files together become too large.

Writing never delays or fails an answer. A thread writes, and up to 20,000 customers wait for it. Lines beyond that, lines that
cannot be written, and lines that still wait when the service has to end are counted in ``churn_prediction_log_rows_total``, so
monitoring can see that the log is incomplete.
"""

import hmac
import logging
import math
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.background import Background
from churn_pipeline.serving.bundle import Manifest
from churn_pipeline.serving.json_lines import json_line
from churn_pipeline.serving.metrics import Metrics, Role
from churn_pipeline.serving.prediction_files import LogFiles
from churn_pipeline.serving.request_ids import RequestId
from churn_pipeline.serving.settings import Settings

logger = logging.getLogger(__name__)

WAITING_ROWS = 20_000
CLOSE_SECONDS = 5.0
ERROR_LOG_SECONDS = 60.0
# The thread pauses after a few lines, because it holds the interpreter and would delay requests.
CHUNK_ROWS = 100  # written with one call
ROWS_BEFORE_REST, REST_SECONDS = 30, 0.00005


class LoggedModel(NamedTuple):
    """What the log needs of a bundle: the facts about its model in each line, its features and its id column."""

    facts: Mapping[str, str]
    features: Sequence[str]
    id_column: str | None

    @classmethod
    def of(cls, manifest: Manifest, contract: Contract) -> Self:
        """Take them from a bundle's manifest and contract."""
        facts = {"model_version": manifest.model_version, "model_digest": manifest.model_digest}
        return cls(facts, contract.features, contract.roles.id)


class _Record(NamedTuple):
    when: float
    ids: Mapping[str, str]
    model: LoggedModel
    role: Role
    customers: Sequence[Mapping[str, Any]]
    probabilities: npt.NDArray[np.float64]
    contact: npt.NDArray[np.bool_]


def _files(settings: Settings) -> LogFiles | None:
    """The files of one worker, with room for the files that all workers write at the same time."""
    if settings.prediction_log is None:
        return None
    written = settings.workers * settings.prediction_log_bytes
    kept = settings.prediction_log_total_bytes - written
    return LogFiles(settings.prediction_log, settings.prediction_log_bytes, kept, settings.prediction_log_days)


class PredictionLog:
    """The prediction log of one worker, for all its bundles. Without a folder in the settings it writes nothing.

    Parameters
    ----------
    settings
        The service's settings: folder, share, sizes, age and the secret for ids.
    metrics
        Metrics that count the lines.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._files = _files(settings)
        self._share = settings.prediction_log_share
        key = settings.prediction_log_id_key
        self._id_key = key.get_secret_value().encode() if key else None
        self._metrics = metrics
        # Rows queued, changed under the lock because several threads answer requests, and rows processed by the writer.
        self._queued = self._processed = 0
        self._lock = threading.Lock()
        self._error_logged = -math.inf
        self._background: Background[_Record] = Background(
            self._write, WAITING_ROWS, "prediction-log", upkeep=self._upkeep, at_end=self._close_file
        )
        if self._files is not None:
            self._background.start()  # old files are deleted even if nothing is ever written

    def write(
        self,
        request_id: str,
        model: LoggedModel,
        customers: Sequence[Mapping[str, Any]],
        probabilities: npt.NDArray[np.float64],
        contact: npt.NDArray[np.bool_],
        role: Role = "champion",
    ) -> None:
        """Queue an answered request for the log. It neither blocks nor raises.

        Parameters
        ----------
        request_id
            Id of the request. The hash of the service's own id decides whether the request is in the sample; a plain text
            counts as such an id.
        model
            The model that scored the customers.
        customers
            The customers of the request, as dicts by column; do not change them afterwards.
        probabilities : ndarray of shape (rows,), float64
            Churn probabilities.
        contact : ndarray of shape (rows,), bool
            The decisions.
        role
            The model's role; predictions of the role ``shadow`` were not returned.
        """
        if self._files is None:
            return
        rows = len(customers)
        ids = request_id.facts if isinstance(request_id, RequestId) else {"request_id": request_id}
        if zlib.crc32(ids["request_id"].encode("utf-8", "replace")) >= self._share * 2**32:
            self._metrics.logged("sampled_out", rows)
            return
        record = _Record(time.time(), ids, model, role, customers, probabilities, contact)
        with self._lock:
            waiting = self.waiting_rows
            queued = not (waiting and waiting + rows > WAITING_ROWS) and self._background.put(record)
            if queued:
                self._queued += rows
        if not queued:
            self._metrics.logged("dropped", rows)

    @property
    def waiting_rows(self) -> int:
        """Number of customers that are queued or being written."""
        return self._queued - self._processed

    def close(self) -> None:
        """Write the queued lines and close the file. If that takes too long, count and log the rows that are lost."""
        if self._background.close(CLOSE_SECONDS):
            return
        lost = self.waiting_rows
        self._metrics.logged("lost", lost)
        logger.error("The prediction log was closed after %g s: %d customers are not logged", CLOSE_SECONDS, lost)

    def _upkeep(self) -> None:
        assert self._files is not None, "without a folder no thread runs"
        try:
            self._files.upkeep()
        except OSError as error:
            self._log_error(error)

    def _close_file(self) -> None:
        assert self._files is not None, "without a folder no thread runs"
        self._files.close()

    def _write(self, requests: list[_Record]) -> None:
        for chunk in _chunks(requests):
            lines: list[bytes] = []
            for record in chunk:
                try:
                    lines += self._lines(record)
                except Exception as error:  # any error: the next request may succeed
                    self._failed(len(record.customers), error)
            self._append(lines)
            self._processed += sum(len(record.customers) for record in chunk)

    def _append(self, lines: list[bytes]) -> None:
        """Write lines with one call, which takes a small part of the time of a call for each request."""
        assert self._files is not None, "without a folder nothing is queued"
        try:
            self._files.append(lines)
            self._metrics.logged("written", len(lines))
        except Exception as error:  # any error: the next lines may succeed
            self._failed(len(lines), error)

    def _failed(self, rows: int, error: Exception) -> None:
        self._metrics.logged("failed", rows)
        self._log_error(error)

    def _lines(self, record: _Record) -> Iterator[bytes]:
        when = datetime.fromtimestamp(record.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": when, **record.ids, **record.model.facts, "role": record.role}
        answers = zip(record.customers, record.probabilities.tolist(), record.contact.tolist(), strict=True)
        for number, (customer, probability, contact) in enumerate(answers, 1):
            line = {
                **head,
                "features": {name: customer.get(name) for name in record.model.features},
                "churn_probability": probability,
                "contact": contact,
            }
            if (identity := self._identity(customer, record.model.id_column)) is not None:
                line["customer"] = identity
            yield json_line(line) + b"\n"
            if number % ROWS_BEFORE_REST == 0:
                time.sleep(REST_SECONDS)

    def _identity(self, customer: Mapping[str, Any], id_column: str | None) -> str | None:
        if self._id_key is None or id_column is None or customer.get(id_column) is None:
            return None
        return hmac.digest(self._id_key, str(customer[id_column]).encode("utf-8", "replace"), "sha256").hex()

    def _log_error(self, error: Exception) -> None:
        if time.monotonic() - self._error_logged >= ERROR_LOG_SECONDS:
            self._error_logged = time.monotonic()
            logger.error("The prediction log cannot be written: predictions are not logged", exc_info=error)


def _chunks(requests: Sequence[_Record]) -> Iterator[list[_Record]]:
    """Requests in groups of about `CHUNK_ROWS` customers."""
    chunk: list[_Record] = []
    rows = 0
    for record in requests:
        chunk.append(record)
        rows += len(record.customers)
        if rows >= CHUNK_ROWS:
            yield chunk
            chunk, rows = [], 0
    if chunk:
        yield chunk
