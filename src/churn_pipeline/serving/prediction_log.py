"""The prediction log for monitoring: one JSON line per scored customer, in files that only their owner can read.

This is the only place where customer data is written. A customer's id is stored only as its HMAC-SHA256 under a secret from
the settings, so that outcomes can be joined later. Each worker writes its own files,
``predictions-<UTC time>-<process>-<random>.jsonl``. A new file starts at a maximum size or after a day. Files are deleted at a
maximum age.

Writing never delays or fails an answer. A thread writes, and up to 20,000 customers wait for it. Lines beyond that, or that
cannot be written, are dropped and counted in ``churn_prediction_log_rows_total``, so monitoring can see that the log is
incomplete.
"""

import hmac
import json
import logging
import math
import os
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from churn_pipeline.contract.table import Contract
from churn_pipeline.serving.background import Background
from churn_pipeline.serving.bundle import Manifest
from churn_pipeline.serving.metrics import Metrics, Role
from churn_pipeline.serving.settings import Settings

logger = logging.getLogger(__name__)

WAITING_ROWS = 20_000
DAY = 86_400.0
ERROR_LOG_SECONDS = 60.0
PATTERN = "predictions-*.jsonl"
# The thread pauses after a few lines, because it holds the interpreter and would delay requests.
ROWS_BEFORE_REST, REST_SECONDS = 10, 0.00005


class _Record(NamedTuple):
    when: float
    request_id: str
    customers: Sequence[Mapping[str, Any]]
    probabilities: npt.NDArray[np.float64]
    contact: npt.NDArray[np.bool_]
    role: Role


class PredictionLog:
    """The prediction log of one worker. Without a folder in the settings it writes nothing.

    Parameters
    ----------
    settings
        The service's settings: folder, share, size, age and the secret for ids.
    manifest, contract
        From the bundle: the model's version and digest, the features and the id column.
    metrics
        Metrics that count the lines.
    """

    def __init__(self, settings: Settings, manifest: Manifest, contract: Contract, metrics: Metrics) -> None:
        self._files: _Files | None = None
        if settings.prediction_log is not None:
            self._files = _Files(settings.prediction_log, settings.prediction_log_bytes, settings.prediction_log_days)
        self._share = settings.prediction_log_share
        key = settings.prediction_log_id_key
        self._id_key = key.get_secret_value().encode() if key else None
        self._id_column = contract.roles.id
        self._features = contract.features
        self._model = {"model_version": manifest.model_version, "model_digest": manifest.model_digest}
        self._metrics = metrics
        # Rows queued and rows processed. Each is changed by one thread only, so no lock is needed.
        self._queued = self._processed = 0
        self._error_logged = -math.inf
        self._background: Background[_Record] = Background(self._write, WAITING_ROWS, "prediction-log")

    def write(
        self,
        request_id: str,
        customers: Sequence[Mapping[str, Any]],
        probabilities: npt.NDArray[np.float64],
        contact: npt.NDArray[np.bool_],
        role: Role = "champion",
    ) -> None:
        """Queue an answered request for the log. It neither blocks nor raises.

        Parameters
        ----------
        request_id
            Id of the request; its hash decides whether the request is in the sample.
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
        if zlib.crc32(request_id.encode("utf-8", "replace")) >= self._share * 2**32:
            self._metrics.logged("sampled_out", rows)
            return
        waiting = self._queued - self._processed
        record = _Record(time.time(), request_id, customers, probabilities, contact, role)
        if (waiting and waiting + rows > WAITING_ROWS) or not self._background.put(record):
            self._metrics.logged("dropped", rows)
            return
        self._queued += rows

    def close(self) -> None:
        """Write the queued lines, and close the file unless a write is stuck."""
        if self._background.close() and self._files is not None:
            self._files.close()

    def _write(self, requests: list[_Record]) -> None:
        assert self._files is not None, "without a folder nothing is queued"
        for record in requests:
            rows = len(record.customers)
            try:
                self._files.append(self._lines(record))
                self._metrics.logged("written", rows)
            except Exception as error:  # any error: the next request may succeed
                self._metrics.logged("failed", rows)
                self._log_error(error)
            self._processed += rows

    def _lines(self, record: _Record) -> Iterator[bytes]:
        when = datetime.fromtimestamp(record.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": when, "request_id": record.request_id, **self._model, "role": record.role}
        answers = zip(record.customers, record.probabilities.tolist(), record.contact.tolist(), strict=True)
        for number, (customer, probability, contact) in enumerate(answers, 1):
            line = {
                **head,
                "features": {name: _finite_or_none(customer.get(name)) for name in self._features},
                "churn_probability": probability,
                "contact": contact,
            }
            if (identity := self._identity(customer)) is not None:
                line["customer"] = identity
            yield ENCODE(line).encode() + b"\n"
            if number % ROWS_BEFORE_REST == 0:
                time.sleep(REST_SECONDS)

    def _identity(self, customer: Mapping[str, Any]) -> str | None:
        if self._id_key is None or self._id_column is None or customer.get(self._id_column) is None:
            return None
        return hmac.digest(self._id_key, str(customer[self._id_column]).encode("utf-8", "replace"), "sha256").hex()

    def _log_error(self, error: Exception) -> None:
        if time.monotonic() - self._error_logged >= ERROR_LOG_SECONDS:
            self._error_logged = time.monotonic()
            logger.error("The prediction log cannot be written: predictions are not logged", exc_info=error)


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _python_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return _finite_or_none(value.item())
    raise TypeError(f"a feature cannot have a value of type {type(value).__name__}")


ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_python_value).encode


class _Files:
    """Log files with rotation in one folder.

    Parameters
    ----------
    folder
        Folder of the files; created if it is missing.
    max_bytes
        Maximum size of a file, in bytes.
    days
        Days since its last line after which a file is deleted.
    """

    def __init__(self, folder: Path, max_bytes: int, days: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._days = days
        self._open: int | None = None
        self._size = 0
        self._since = self._swept = -math.inf

    def append(self, lines: Iterable[bytes]) -> None:
        """Write complete lines, or raise OSError."""
        part: list[bytes] = []
        size = 0
        for line in lines:
            if part and self._size + size + len(line) > self._max_bytes:
                self._put(b"".join(part))
                part, size = [], 0
            part.append(line)
            size += len(line)
        if part:
            self._put(b"".join(part))

    def close(self) -> None:
        """Close the file; the next line starts a new one."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _put(self, data: bytes) -> None:
        now = time.time()
        if now - self._swept >= DAY / 24:
            self._swept = now
            self._delete_old(now)
        if self._open is not None and (
            (self._size and self._size + len(data) > self._max_bytes)
            or now - self._since >= DAY
            or os.fstat(self._open).st_nlink == 0  # deleted from outside: its lines would be lost
        ):
            self.close()
        file = self._file(now)
        written = 0
        try:
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError:
            os.ftruncate(file, self._size)  # leave no partial line
            raise
        self._size += len(data)

    def _file(self, now: float) -> int:
        if self._open is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S")
            name = f"predictions-{stamp}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._open = os.open(self._folder / name, flags, 0o600)
            self._size, self._since = 0, now
        return self._open

    def _delete_old(self, now: float) -> None:
        for file in self._folder.glob(PATTERN):
            try:
                if now - file.stat().st_mtime > self._days * DAY:
                    file.unlink()
            except FileNotFoundError:  # another worker deleted it
                continue
