"""API keys: named, stored as hashes, revoked by taking them out of the file.

A key is 256 random bits, so nobody finds it by trying, at any speed, and a plain SHA-256 keeps it as safe as a slow
hash would; slow hashes exist for passwords, which people choose. A slow one would cost every request milliseconds.

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
REREAD_SECONDS = 1.0


class StoredKey(NamedTuple):
    """What is kept of a key: whose it is, and its SHA-256."""

    name: str
    digest: bytes


class _Seen(NamedTuple):
    changed: int
    size: int
    node: int


def make_key(name: str) -> tuple[str, str]:
    """Make a key.

    Returns
    -------
    key : str
        To be handed to the caller, and kept nowhere else.
    line : str
        ``name:hash``, to be stored.

    Raises
    ------
    ValueError
        When the name is not made of letters, digits, dots, dashes and underscores.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"
    if not LINE.fullmatch(line):
        raise ValueError("a key's name is made of letters, digits, '.', '-' and '_', and has at most 64 of them")
    return key, line


def read_keys(lines: Iterable[str]) -> tuple[list[StoredKey], list[int]]:
    """Read stored keys.

    Several keys may share a name: so that one can take another's place with no gap between them.

    Parameters
    ----------
    lines
        ``name:hash`` each; empty ones and such as begin with ``#`` are passed over.

    Returns
    -------
    keys : list of StoredKey
        In their order.
    wrong : list of int
        The numbers, from 1, of lines that are none of these.
    """
    keys, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if found := LINE.fullmatch(text):
            keys.append(StoredKey(found["name"], bytes.fromhex(found["digest"])))
        elif text and not text.startswith("#"):
            wrong.append(number)
    return keys, wrong


class KeyRing:
    """The keys that are valid now.

    The file is read again when it has changed, looked at once a second at most. What it holds then is what is valid:
    a key taken out of it stops working, and a file that is gone or cannot be read holds none.

    Parameters
    ----------
    lines
        Keys that stay as long as the service runs.
    file
        A file of further ones, a key a line.
    clock
        Seconds, from any beginning.
    """

    def __init__(
        self, lines: Iterable[str] = (), file: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed, _ = read_keys(lines)
        self._file = file
        self._clock = clock
        self._keys = self._fixed
        self._seen: _Seen | None = None
        self._look_again = -float("inf")
        self._refresh()

    def name_of(self, key: bytes) -> str | None:
        """The name of a key's holder; None for a key that is not valid.

        It takes the same time whichever key it is, or none.
        """
        if self._file is not None and self._clock() >= self._look_again:
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
        self._look_again = self._clock() + REREAD_SECONDS
        try:
            found = self._file.stat()
            seen = _Seen(found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return
            keys, wrong = read_keys(self._file.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            if len(self._keys) > len(self._fixed) or self._seen is None:
                logger.error("The file of keys cannot be read, so its keys are not valid: %s", type(error).__name__)
            self._keys, self._seen = self._fixed, _Seen(0, 0, 0)
            return
        self._keys, self._seen = [*self._fixed, *keys], seen
        logger.info("Keys read: %d", len(self._keys))
        if wrong:
            logger.error("Lines of the file of keys that are no name:hash: %s", ", ".join(map(str, wrong)))


def main(words: list[str]) -> int:
    """Print a new key, and the line to store."""
    try:
        [name] = words
        key, line = make_key(name)
    except ValueError as error:
        reason = str(error) if len(words) == 1 else "name the one who will hold the key"
        sys.stderr.write(f"{reason}: python -m churn_pipeline.serving.keys NAME\n")
        return 2
    sys.stdout.write(
        f"The key, shown this once:\n{key}\n\n"
        f"The line to store, in CHURN_SERVING_KEYS or the file that CHURN_SERVING_KEYS_FILE names:\n{line}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
