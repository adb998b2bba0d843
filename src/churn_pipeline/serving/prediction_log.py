"""What was served, for monitoring: a JSON line for every customer, in files that only their owner can read.

The one place where a customer's values are written. The customer's id is not among them: only its HMAC-SHA256 under
a key of the settings, by which outcomes can be joined later. Each worker writes files of its own,
``predictions-<UTC time>-<process>-<random>.jsonl``; a file is followed by a new one at a size or after a day, and deleted
at an age.

Writing neither delays an answer nor fails it: a thread writes, 20,000 customers may wait, and what comes beyond that, or
cannot be written, is counted in ``churn_prediction_log_rows_total`` and dropped. Monitoring must not take a log with drops
for the whole.
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
from churn_pipeline.serving.metrics import Metrics
from churn_pipeline.serving.settings import Settings

logger = logging.getLogger(__name__)

WAITING_ROWS = 20_000
DAY = 86_400.0
COMPLAIN_SECONDS = 60.0
PATTERN = "predictions-*.jsonl"
# The thread rests after a few lines: what it holds up, by holding the interpreter, is this much of a request at most.
ROWS_BEFORE_REST, REST_SECONDS = 10, 0.00005


class _Served(NamedTuple):
    when: float
    request_id: str
    customers: Sequence[Mapping[str, Any]]
    probabilities: npt.NDArray[np.float64]
    contact: npt.NDArray[np.bool_]


class PredictionLog:
    """The log of one worker. Without a folder in the settings it writes nothing.

    Parameters
    ----------
    settings
        Folder, share, size, age and the key of ids.
    manifest, contract
        The bundle's: what every line says of the model, and which columns are features and which is the id.
    metrics
        Where lines are counted.
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
        # Each is written by one thread alone: the difference waits.
        self._given = self._taken = 0
        self._complained = -math.inf
        self._background: Background[_Served] = Background(self._write, WAITING_ROWS, "prediction-log")

    def write(
        self,
        request_id: str,
        customers: Sequence[Mapping[str, Any]],
        probabilities: npt.NDArray[np.float64],
        contact: npt.NDArray[np.bool_],
    ) -> None:
        """Log an answered request, some time soon. It neither waits nor raises.

        Parameters
        ----------
        request_id
            The request's id; it decides alone whether the request is in the sample.
        customers
            The customers as they were asked about, by the contract's columns; they must not be changed afterwards.
        probabilities : ndarray of shape (rows,), float64
            Churn probabilities.
        contact : ndarray of shape (rows,), bool
            The decisions.
        """
        if self._files is None:
            return
        rows = len(customers)
        if zlib.crc32(request_id.encode("utf-8", "replace")) >= self._share * 2**32:
            self._metrics.logged("sampled_out", rows)
            return
        waiting = self._given - self._taken
        served = _Served(time.time(), request_id, customers, probabilities, contact)
        if (waiting and waiting + rows > WAITING_ROWS) or not self._background.put(served):
            self._metrics.logged("dropped", rows)
            return
        self._given += rows

    def close(self) -> None:
        """Write what is waiting, and close the file unless the disk is still at it."""
        if self._background.close() and self._files is not None:
            self._files.close()

    def _write(self, requests: list[_Served]) -> None:
        assert self._files is not None, "nothing is given to the thread without a folder"
        for served in requests:
            rows = len(served.customers)
            try:
                self._files.append(self._lines(served))
                self._metrics.logged("written", rows)
            except Exception as error:  # whatever it is, the next request may do better
                self._metrics.logged("failed", rows)
                self._complain(error)
            self._taken += rows

    def _lines(self, served: _Served) -> Iterator[bytes]:
        when = datetime.fromtimestamp(served.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": when, "request_id": served.request_id, **self._model}
        answers = zip(served.customers, served.probabilities.tolist(), served.contact.tolist(), strict=True)
        for number, (customer, probability, contact) in enumerate(answers, 1):
            line = {
                **head,
                "features": {name: _known(customer.get(name)) for name in self._features},
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

    def _complain(self, error: Exception) -> None:
        if time.monotonic() - self._complained >= COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            logger.error("The prediction log cannot be written; predictions go unlogged", exc_info=error)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return _known(value.item())
    raise TypeError(f"a {type(value).__name__} is no feature's value")


ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


class _Files:
    """Files that follow one another in a folder.

    Parameters
    ----------
    folder
        Made where it is missing.
    most
        Bytes after which a file is followed by a new one.
    days
        Days since its last line after which a file is deleted.
    """

    def __init__(self, folder: Path, most: int, days: float) -> None:
        self._folder = folder
        self._most = most
        self._days = days
        self._open: int | None = None
        self._size = 0
        self._since = self._swept = -math.inf

    def append(self, lines: Iterable[bytes]) -> None:
        """Write whole lines, or raise OSError."""
        part: list[bytes] = []
        size = 0
        for line in lines:
            if part and self._size + size + len(line) > self._most:
                self._put(b"".join(part))
                part, size = [], 0
            part.append(line)
            size += len(line)
        if part:
            self._put(b"".join(part))

    def close(self) -> None:
        """Close the file; a later line begins a new one."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _put(self, data: bytes) -> None:
        now = time.time()
        if now - self._swept >= DAY / 24:
            self._swept = now
            self._delete_old(now)
        if self._open is not None and (
            (self._size and self._size + len(data) > self._most)
            or now - self._since >= DAY
            or os.fstat(self._open).st_nlink == 0  # deleted under our hands: what is written there is lost
        ):
            self.close()
        file = self._file(now)
        written = 0
        try:
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError:
            os.ftruncate(file, self._size)  # no half line is left behind
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
            except FileNotFoundError:  # another worker was faster
                continue
