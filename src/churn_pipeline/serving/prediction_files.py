"""The files of the prediction log: started by size and by day, deleted by age and by total size.

A writer holds the lock (``flock``) of the file that it writes, so that no other process deletes it. Several services may
share a folder, because each new file has a random name.
"""

import contextlib
import fcntl
import logging
import math
import os
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

DAY = 86_400.0
SWEEP_SECONDS = 60.0
PATTERN = "predictions-*.jsonl"


class _Stored(NamedTuple):
    modified: float
    path: Path
    size: int


class LogFiles:
    """Log files in one folder. One thread calls all methods.

    Parameters
    ----------
    folder
        Folder of the files; created if it is missing.
    max_bytes
        Maximum size of a file, in bytes.
    kept_bytes
        Maximum size of all files when a file is started, in bytes. The oldest files are deleted first, those that a process
        writes never.
    days
        Days since its last line after which a file is deleted.
    """

    def __init__(self, folder: Path, max_bytes: int, kept_bytes: int, days: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._kept_bytes = kept_bytes
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

    def upkeep(self) -> None:
        """Once a minute: close a file that is a day old, and delete what is too old or too much."""
        now = time.time()
        if not 0 <= now - self._swept < SWEEP_SECONDS:
            if now - self._since >= DAY:
                self.close()
            self._sweep(now)

    def close(self) -> None:
        """Close the file; the next line starts a new one."""
        if self._open is not None:
            os.close(self._open)
            self._open = None

    def _put(self, data: bytes) -> None:
        now = time.time()
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
            self._sweep(now)
            stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S")
            name = f"predictions-{stamp}-{os.getpid()}-{secrets.token_hex(3)}.jsonl"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._open = os.open(self._folder / name, flags, 0o600)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(self._open, fcntl.LOCK_EX)
            self._size, self._since = 0, now
        return self._open

    def _sweep(self, now: float) -> None:
        """Delete files beyond their age, and then the oldest files beyond the total size."""
        self._swept = now
        deleted = {"age": 0, "total size": 0}
        failure: OSError | None = None
        stored = _stored_in(self._folder)
        total = sum(one.size for one in stored)
        for one in stored:
            reason = "age" if now - one.modified > self._days * DAY else "total size"
            if reason == "total size" and total <= self._kept_bytes:
                break
            try:
                gone = _delete_unless_written(one.path)
            except OSError as error:
                gone, failure = False, error
            if gone:
                deleted[reason] += 1
                total -= one.size
        for reason, files in deleted.items():
            if files:
                level = logging.INFO if reason == "age" else logging.WARNING
                logger.log(level, "Deleted prediction log files: %d, because of their %s", files, reason)
        if failure is not None:
            logger.error("Files of the prediction log cannot be deleted", exc_info=failure)


def _stored_in(folder: Path) -> list[_Stored]:
    """The files of the log, oldest first."""
    stored = []
    for path in folder.glob(PATTERN):
        with contextlib.suppress(FileNotFoundError):  # another worker deleted it
            status = path.stat(follow_symlinks=False)
            stored.append(_Stored(status.st_mtime, path, status.st_size))
    return sorted(stored)


def _delete_unless_written(path: Path) -> bool:
    """Delete a file; False if a process still writes it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # another worker deleted it
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True
