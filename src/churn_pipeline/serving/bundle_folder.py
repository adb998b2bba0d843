"""A folder of bundles: one sub-folder for each, and the pointers ``current`` and ``second`` that name the served ones.

A pointer is a text file with the name of a sub-folder, or a symbolic link to it. Whatever promotes models writes the pointers;
the service only reads them. Replace a pointer in one step (``os.replace``, ``mv``), after its bundle is complete.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from churn_pipeline.serving.bundle import MANIFEST_FILE, Bundle, BundleError

CURRENT, SECOND = "current", "second"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleId(_Frozen):
    """A sub-folder's name and the SHA-256 of its manifest, which has the digests of all other files."""

    name: str
    digest: str


class Selection(_Frozen):
    """What the pointers name.

    Attributes
    ----------
    current, second
        The first bundle, and the second one if there is one.
    written
        Times at which the pointers were written, in nanoseconds.
    """

    current: BundleId
    second: BundleId | None = None
    written: tuple[int, ...] = ()

    @property
    def bundles(self) -> tuple[BundleId, ...]:
        """The selected bundles, the first one first."""
        return (self.current,) if self.second is None else (self.current, self.second)

    def __str__(self) -> str:
        return self.current.name if self.second is None else f"{self.current.name} with second {self.second.name}"


class BundleFolder:
    """Reads the pointers and the bundles of a folder.

    Parameters
    ----------
    path
        The folder.
    load
        Reads and checks one bundle.
    """

    def __init__(self, path: Path, load: Callable[[Path], Bundle]) -> None:
        self._path = path
        self._load = load

    def selection(self) -> Selection | None:
        """What the pointers name; None if ``current`` is missing or empty.

        Raises
        ------
        OSError
            If a pointer cannot be read.
        """
        current, second = self._pointed(CURRENT), self._pointed(SECOND)
        if current is None:
            return None
        pointers = [(CURRENT, current)] + ([(SECOND, second)] if second is not None else [])
        written = tuple((self._path / pointer).lstat().st_mtime_ns for pointer, _ in pointers)
        first, *rest = (BundleId(name=name, digest=self._digest(name)) for _, name in pointers)
        return Selection(current=first, second=rest[0] if rest else None, written=written)

    def first_selection(self) -> Selection:
        """What the pointers name at the start of the service.

        Raises
        ------
        BundleError
            If ``current`` is missing, empty or cannot be read.
        """
        try:
            selection = self.selection()
        except OSError as error:
            raise BundleError(f"the folder of bundles {self._path} cannot be read: {error.strerror}") from None
        if selection is None:
            raise BundleError(
                f"{self._path} has no file {CURRENT}: write the name of the sub-folder with the served bundle into it"
            )
        return selection

    def load(self, bundle: BundleId) -> Bundle:
        """Read and check a bundle.

        Raises
        ------
        BundleError
            If it cannot be served, or is not the bundle that was selected.
        """
        if Path(bundle.name).name != bundle.name:
            raise BundleError(f"{CURRENT} and {SECOND} must contain the name of a sub-folder")
        loaded = self._load(self._path / bundle.name)
        if self._digest(bundle.name) != bundle.digest:
            raise BundleError(f"{MANIFEST_FILE} changed while the bundle was loaded: write complete bundles only")
        return loaded

    def _pointed(self, pointer: str) -> str | None:
        file = self._path / pointer
        if file.is_symlink() and not file.is_file():
            return file.readlink().name
        try:
            name = file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        return name or None

    def _digest(self, name: str) -> str:
        """Digest of a bundle's manifest; empty if there is none, which is reported when the bundle is loaded."""
        if Path(name).name != name:
            return ""
        try:
            return hashlib.sha256((self._path / name / MANIFEST_FILE).read_bytes()).hexdigest()
        except OSError:
            return ""
