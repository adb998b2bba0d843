"""Verifying a bundle on any machine, as the service does at its start."""

import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from churn_pipeline.documents import BUNDLE_FOLDER
from churn_pipeline.serving.bundle import BundleError, Manifest, load_bundle

IN_BENTO = f"src/{BUNDLE_FOLDER}"


def verify_bundle(path: Path, key: Path) -> Manifest:
    """Check that a bundle is signed by the holder of a key and can be served.

    Parameters
    ----------
    path
        The folder of a bundle, the folder of a Bento, or an exported Bento (``.bento``).
    key
        File of the public key, in PEM format.

    Returns
    -------
    Manifest
        The manifest of the bundle.

    Raises
    ------
    BundleError
        If it is not.
    """
    with _bundle_folder(path) as folder:
        return load_bundle(folder, key).manifest


@contextmanager
def _bundle_folder(path: Path) -> Iterator[Path]:
    """Yield the folder of the bundle; the bundle of an archive is extracted to a temporary one."""
    if path.is_dir():
        yield path / IN_BENTO if (path / IN_BENTO).is_dir() else path
        return
    with tempfile.TemporaryDirectory() as folder:
        _extract(path, Path(folder))
        yield Path(folder) / IN_BENTO


def _extract_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    # Not `extractall(filter="data")`: Python 3.11 has it from 3.11.4 on only, and Debian 12 has 3.11.2.
    path, content = PurePosixPath(member.name), archive.extractfile(member) if member.isfile() else None
    if ".." in path.parts or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name} is outside the archive's folder, or a link")
    if content is not None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.read())


def _extract(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as opened:
            members = [member for member in opened if PurePosixPath(member.name).is_relative_to(IN_BENTO)]
            for member in members:
                _extract_member(opened, member, folder)
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error):
        raise BundleError("this is neither a folder nor a complete exported Bento") from None
    if not members:
        raise BundleError(f"the archive has no folder {IN_BENTO}, so it is not a Bento of this project")
