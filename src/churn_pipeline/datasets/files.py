"""One file of a dataset, on this machine or at any other address that fsspec knows, such as ``s3://``."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from kedro.io import DatasetError
from kedro.io.core import get_filepath_str, get_protocol_and_path

LOCAL = "file"


class StoredFile:
    """A file that is read and written as a whole.

    A writer that is interrupted leaves the previous file, if any. On this machine, the content is written beside the file and
    moved; an object store shows a file only when it is complete.

    Parameters
    ----------
    filepath
        The address of the file, or its path on this machine.
    credentials
        Arguments of fsspec's file system, such as ``key`` and ``secret`` for S3; not used on this machine.

    Examples
    --------
    >>> file = StoredFile("memory://bucket/numbers.csv")
    >>> file.write(b"1,2")
    >>> file.read()
    b'1,2'
    """

    def __init__(self, filepath: str, credentials: Mapping[str, Any] | None = None) -> None:
        self.address = str(filepath)
        self._protocol, path = get_protocol_and_path(self.address)
        self._path = PurePosixPath(path)
        self._credentials = dict(credentials or {})

    @property
    def name(self) -> str:
        """The name of the file without its folder."""
        return self._path.name

    @property
    def local_path(self) -> Path | None:
        """The path on this machine; None for a file elsewhere."""
        return Path(self._path) if self._protocol == LOCAL else None

    @cached_property
    def _filesystem(self) -> Any:
        # Made at the first access: importing the client of an object store takes time.
        return fsspec.filesystem(self._protocol, **({} if self.local_path else self._credentials))

    @property
    def _key(self) -> str:
        return get_filepath_str(self._path, self._protocol)

    def exists(self) -> bool:
        """Return whether there is such a file."""
        # fsspec's `isfile` returns False for an error too, such as a wrong key.
        return self.local_path.is_file() if self.local_path else bool(self._filesystem.exists(self._key))

    def read(self) -> bytes:
        """Return the content."""
        content: bytes = self._filesystem.cat_file(self._key)
        return content

    def sha256(self) -> str:
        """Return the SHA-256 of the content, which is not kept in memory."""
        with self._filesystem.open(self._key, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def write(self, content: bytes) -> None:
        """Replace the file's content."""
        if self.local_path is None:
            self._filesystem.pipe_file(self._key, content)
            return
        with replacing(self.local_path) as part:
            part.write_bytes(content)

    def write_from(self, source: Path) -> None:
        """Replace the file by a copy of a file on this machine."""
        if self.local_path is None:
            self._filesystem.put_file(str(source), self._key)
            return
        with replacing(self.local_path) as part:
            shutil.copyfile(source, part)

    @contextmanager
    def on_this_machine(self) -> Iterator[Path]:
        """The file itself, or a temporary copy of it with the same name."""
        if self.local_path is not None:
            yield self.local_path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / self.name
            self._filesystem.get_file(self._key, str(copy))
            yield copy


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside a path, which replaces the path at the end, and is deleted after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may write the same file at once.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def path_on_this_machine(filepath: str | os.PathLike[str], what: str, fix: str = "give a path on this machine") -> Path:
    """Return a path; only files on this machine are accepted.

    Parameters
    ----------
    filepath
        The path, or a ``file://`` address.
    what
        What the file is, for the message.
    fix
        What to do instead.

    Raises
    ------
    DatasetError
        If the address names a file elsewhere.
    """
    path = StoredFile(str(filepath)).local_path
    if path is None:
        raise DatasetError(f"{what} cannot be used at {filepath}: {fix}")
    return path
