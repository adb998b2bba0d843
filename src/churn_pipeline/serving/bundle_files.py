"""Reading a bundle's files: each once, so that what was checked is what is loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Part = TypeVar("Part", bound=BaseModel)


class BundleError(ValueError):
    """A bundle that cannot be served. The message is one line and can be shown unchanged."""


def read_file(folder: Path, name: str, signed: Mapping[str, bytes] | None = None) -> bytes:
    """Read one file of a bundle.

    Parameters
    ----------
    folder
        Folder of the bundle.
    name
        Name of the file.
    signed
        Verified contents by name, from `read_folder`. With them, nothing is read from the folder.

    Raises
    ------
    BundleError
        If the file is outside the folder, or cannot be read.
    """
    if Path(name).name != name:
        raise BundleError(f"{name!r} is outside the bundle")
    if signed is not None:
        if name not in signed:
            raise BundleError(f"{name} cannot be read from {folder}: it is not one of the signed files")
        return signed[name]
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name} cannot be read from {folder}: {error.strerror}") from None


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read every file in a folder and its subfolders.

    Returns
    -------
    dict of str
        Contents by path relative to the folder, with slashes.

    Raises
    ------
    BundleError
        If the folder or a file cannot be read, or an entry is neither a file nor a folder, such as a symbolic link.
    """
    root, contents = folder.resolve(), {}
    if not root.is_dir():
        raise BundleError(f"there is no folder {folder}")
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"{name!r} in {folder} is not a regular file: a signed bundle has only regular files")
        if path.is_file():
            try:
                contents[name] = path.read_bytes()
            except OSError as error:
                raise BundleError(f"{name!r} cannot be read from {folder}: {error.strerror}") from None
    return contents


def parse(kind: type[Part], content: bytes, name: str) -> Part:
    """Parse a JSON file of a bundle.

    Raises
    ------
    BundleError
        If it is not what `kind` describes; the message names the first mistake and no value.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = "".join(sign if sign.isprintable() else "?" for sign in ".".join(map(str, first["loc"])))
        problem = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"{name} is malformed: {where + ': ' if where else ''}{problem}") from None
