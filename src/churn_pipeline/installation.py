"""Where the project's files are: in a checkout, or in the working directory if the package was installed from a wheel."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from kedro.utils import find_kedro_project

CONF_SOURCE = "CHURN_CONF_SOURCE"
PACKAGE = Path(__file__).parent
# A wheel carries copies of some of the repository's files, and a note of its origin. setup.py writes both.
COPIES = PACKAGE / "project_files"
ORIGIN = COPIES / "origin.json"
CHECKOUT = PACKAGE.parents[1]


class Origin(NamedTuple):
    """What a wheel was built from: commit, whether files had changed (``true``, ``false``, ``unknown``), the lock's SHA-256."""

    commit: str
    dirty: str
    lock: str


def origin() -> Origin | None:
    """Return what the installed wheel was built from; None in a checkout."""
    return Origin(**json.loads(ORIGIN.read_text(encoding="utf-8"))) if ORIGIN.is_file() else None


def working_project() -> Path:
    """Return the Kedro project around the working directory, otherwise the working directory; runs write there."""
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def configured_project() -> Path:
    """Return the project whose configuration a command reads: outside any project, that of this checkout."""
    is_outside = find_kedro_project(Path.cwd()) is None
    return CHECKOUT if is_outside and origin() is None else working_project()


def conf_source(project: Path) -> str:
    """Return the address of the configuration: ``CHURN_CONF_SOURCE``, otherwise the project's folder ``conf``."""
    chosen = os.environ.get(CONF_SOURCE)
    if chosen and "://" in chosen:
        return chosen
    return str(Path(chosen).resolve() if chosen else project / "conf")


def project_file(project: Path, name: str) -> Path:
    """Return a file of the project, by its path in the repository; if it has none, that of the installed wheel or checkout."""
    own = project / name
    return own if own.is_file() else (CHECKOUT if origin() is None else COPIES) / name
