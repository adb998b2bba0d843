"""Files of an exported Bento, and a check that none can run code when it is read."""

import pickle
import pickletools
import tarfile
from collections.abc import Iterator
from pathlib import Path

COMPRESSED = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\xfd7zXZ",
    b"BZh",
    b"x\x01",
    b"x^",
    b"x\x9c",
    b"x\xda",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
)
PICKLING = (".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pt", ".cloudpickle", ".dill", ".skops", ".pyc")


def files_in(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in an exported Bento."""
    with tarfile.open(archive) as opened:
        for member in opened:
            if content := opened.extractfile(member):
                yield member.name.removeprefix("./"), content.read()


def could_unpickle(name: str, content: bytes) -> bool:
    """Whether a file is a pickle, is named like one, or is compressed, which could hide one."""
    return Path(name).suffix.lower() in PICKLING or content.startswith(COMPRESSED) or _is_pickle(content)


def _is_pickle(content: bytes) -> bool:
    if content[:1] == pickle.PROTO and content[1:2] <= bytes([pickle.HIGHEST_PROTOCOL]):
        return True  # joblib files continue with bytes that are not pickle operations
    try:
        operations = list(pickletools.genops(content))
    except Exception:  # not a pickle: pickletools raises errors of many types
        return False
    return len(operations) > 1
