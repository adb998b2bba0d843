"""API keys: named, stored as hashes, revoked by deleting their line from the key file.

A key is 256 random bits, so it cannot be guessed and a plain SHA-256 protects it as well as a slow hash would. Slow hashes
are for passwords that people choose; one would add milliseconds to every request.

``python -m churn_pipeline.serving.keys NAME`` makes a key. It prints the key, once, and the line to store.
"""

import hashlib
import hmac
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

PREFIX = "churn_"
LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):(?P<digest>[0-9a-f]{64})")
CHECK_SECONDS = 1.0


class StoredKey(NamedTuple):
    """The stored part of a key: the name of its holder and its SHA-256."""

    name: str
    digest: bytes


class _FileVersion(NamedTuple):
    modified: int
    size: int
    inode: int


def make_key(name: str) -> tuple[str, str]:
    """Make a key.

    Returns
    -------
    key : str
        Give it to its holder and store it nowhere else.
    line : str
        ``name:hash``, the line to store.

    Raises
    ------
    ValueError
        If the name is not made of 1 to 64 letters, digits, dots, dashes and underscores.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"
    if not LINE.fullmatch(line):
        raise ValueError("a key name has 1 to 64 letters, digits, '.', '-' or '_', and starts with a letter or digit")
    return key, line


def read_keys(lines: Iterable[str]) -> tuple[list[StoredKey], list[int]]:
    """Parse stored keys.

    Several keys may share a name, so that a new key can replace an old one without an interruption.

    Parameters
    ----------
    lines
        ``name:hash`` each; empty lines and lines that start with ``#`` are ignored.

    Returns
    -------
    keys : list of StoredKey
        The keys in the order of their lines.
    wrong : list of int
        Numbers of the invalid lines, counted from 1.
    """
    keys, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if match := LINE.fullmatch(text):
            keys.append(StoredKey(match["name"], bytes.fromhex(match["digest"])))
        elif text and not text.startswith("#"):
            wrong.append(number)
    return keys, wrong


class KeyRing:
    """The keys that are currently valid.

    The key file is checked for changes at most once a second and read again when it changed. A key deleted from the file stops
    working. If the file is missing or unreadable, none of its keys is valid.

    Parameters
    ----------
    lines
        Keys that are valid as long as the service runs, one ``name:hash`` each.
    file
        Key file with more of these lines.
    clock
        Monotonic clock, in seconds.
    """

    def __init__(
        self, lines: Iterable[str] = (), file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed, _ = read_keys(lines)
        self._file = file
        self.clock = clock
        self._keys = self._fixed
        self._version: _FileVersion | None = None
        self._next_check = -float("inf")
        self._refresh()

    def name_of(self, key: bytes) -> str | None:
        """The name of a key's holder; None if the key is not valid.

        The comparison takes the same time for every key, valid or not.
        """
        if self._file is not None and self.clock() >= self._next_check:
            self._refresh()
        digest = hashlib.sha256(key).digest()
        name = None
        for stored in self._keys:
            if hmac.compare_digest(stored.digest, digest):
                name = stored.name
        return name

    def _refresh(self) -> None:
        if self._file is None:
            return
        self._next_check = self.clock() + CHECK_SECONDS
        try:
            stat = self._file.stat()
            version = _FileVersion(stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version == self._version:
                return
            keys, wrong = read_keys(self._file.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            if len(self._keys) > len(self._fixed) or self._version is None:
                logger.error("The key file cannot be read: its keys are not valid (%s)", type(error).__name__)
            self._keys, self._version = self._fixed, _FileVersion(0, 0, 0)
            return
        self._keys, self._version = [*self._fixed, *keys], version
        logger.info("API keys: %d are valid", len(self._keys))
        if wrong:
            logger.error("Key file: lines that are not name:hash are ignored (%s)", ", ".join(map(str, wrong)))


def main(arguments: list[str]) -> int:
    """Print a new key and the line to store."""
    try:
        [name] = arguments
        key, line = make_key(name)
    except ValueError as error:
        reason = str(error) if len(arguments) == 1 else "give one name, of the key's holder"
        sys.stderr.write(f"{reason}: python -m churn_pipeline.serving.keys NAME\n")
        return 2
    sys.stdout.write(
        f"The API key, shown only this once:\n{key}\n\n"
        f"The line to store, in CHURN_SERVING_KEYS or in the file named by CHURN_SERVING_KEYS_FILE:\n{line}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
