"""Bentos: what BentoML serves and makes images of, built from what is shipped and the service's own code."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from kedro.io import AbstractDataset, DatasetError

if TYPE_CHECKING:  # bentoml takes a quarter of a second to import, and Kedro makes every dataset for every command
    from bentoml import Bento

logger = logging.getLogger(__name__)

SERVICE = "churn_pipeline.serving.service:ChurnService"
# What the service imports of this project. The rest stays at home, and what it needs with it.
CODE = (
    "__init__.py",
    "documents.py",
    "contract/__init__.py",
    "contract/errors.py",
    "contract/table.py",
    "serving/**/*",
)
RECIPE = "Dockerfile.j2"
BUILT_BY_BENTOML = "bentofile.yaml"


@dataclass(frozen=True)
class BentoContent:
    """What goes into a Bento beside the service's code.

    Attributes
    ----------
    files
        Contents by path.
    labels
        What the Bento and its image say of themselves.
    description
        The path of the file that describes the Bento.
    """

    files: Mapping[str, bytes]
    labels: Mapping[str, str]
    description: str


class BentoDataset(AbstractDataset[BentoContent, "Bento"]):
    """Builds a Bento into a store of its own and exports it; a load gives the one that was built last.

    The version is the digest of all that was put in: the same content is the same Bento.

    Parameters
    ----------
    name
        The Bento's name; in the store it is `name_in_store`, with underscores for what BentoML does not take.
    store
        The store's folder, BentoML's home. Nothing of the user's own home is touched.
    filepath
        Where the Bento is exported to.
    package
        The folder of this project's package.
    recipe
        The image's recipe, a Dockerfile as a Jinja template, in which ``labels`` and ``base_image`` stand for these.
    base_image
        What the image is built on.
    service
        Import string of the service.

    Examples
    --------
    >>> from churn_pipeline.datasets import BentoDataset
    >>> files = {"filepath": "churn.bento", "package": "src/churn_pipeline", "recipe": "bentos/Dockerfile.j2"}
    >>> bento = BentoDataset("churn", "bentos/store", base_image="python:3.11-slim", **files).load()  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        store: str,
        filepath: str,
        package: str,
        recipe: str,
        base_image: str,
        service: str = SERVICE,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.name_in_store = re.sub(r"[^a-z0-9._-]", "_", name.lower())
        self._store, self._path = Path(store), Path(filepath)
        self._package, self._recipe = Path(package), Path(recipe)
        self._base_image, self._service = base_image, service
        self.metadata = metadata

    def save(self, data: BentoContent) -> None:
        """Build the Bento, unless the store has it, and export it.

        Raises
        ------
        DatasetError
            When BentoML cannot build it, with what BentoML said.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._lay_out(data, Path(folder))
            version = content_digest(Path(folder))[:16]
            if not self._holds(version):
                self._build(Path(folder), version)
        # A load gives the Bento of the last save, whether it was built just now or before another.
        self._latest.write_text(version, encoding="utf-8")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        bento = self.load()
        bento.export(str(self._path))
        logger.info("Built %s, %.1f MB: %s", bento.tag, self._path.stat().st_size / 1e6, self._path)

    def load(self) -> Bento:
        """The Bento that was saved last."""
        import bentoml

        return bentoml.Bento.from_path(self._built / self._latest.read_text(encoding="utf-8").strip())

    @property
    def _built(self) -> Path:
        """Where BentoML keeps the versions of this Bento."""
        return self._store / "bentos" / self.name_in_store

    @property
    def _latest(self) -> Path:
        """Where BentoML keeps which of them is the latest."""
        return self._built / "latest"

    def _lay_out(self, data: BentoContent, folder: Path) -> None:
        """Write what BentoML builds from: the service's code, what is shipped, the recipe, and the options."""
        code = (file for pattern in CODE for file in self._package.glob(pattern) if "__pycache__" not in file.parts)
        files = {
            f"churn_pipeline/{file.relative_to(self._package).as_posix()}": file.read_bytes()
            for file in code
            if file.is_file()
        }
        labels = json.dumps(dict(data.labels), ensure_ascii=False, sort_keys=True)
        given = f"{{% set base_image = {json.dumps(self._base_image)} %}}\n{{% set labels = {labels} %}}\n"
        recipe = given + self._recipe.read_text(encoding="utf-8")
        options = {
            "service": self._service,
            "name": self.name_in_store,
            "description": f"file:{data.description}",
            "labels": dict(data.labels),
            "docker": {"dockerfile_template": RECIPE},
            "python": {"requirements_txt": "requirements.txt", "lock_packages": False},
        }
        files |= {RECIPE: recipe.encode(), BUILT_BY_BENTOML: yaml.safe_dump(options).encode(), **data.files}
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def _holds(self, version: str) -> bool:
        """Whether the store has the Bento as it was built; one that was changed or cut short is taken out of it."""
        built = self._built / version
        if (built / "bento.yaml").is_file() and content_digest(built / "src").startswith(version):
            return True
        shutil.rmtree(built, ignore_errors=True)
        return False

    def _build(self, folder: Path, version: str) -> None:
        # A process of its own: BentoML imports the service from the folder, and changes into it meanwhile.
        environment = {
            **os.environ,
            "BENTOML_HOME": str(self._store),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "bentoml", "build", "--version", version, "--output", "tag", "."]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DatasetError(
                f"BentoML could not build {self.name_in_store}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
            )

    def _exists(self) -> bool:
        return self._latest.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"name": self.name_in_store, "store": str(self._store), "filepath": str(self._path)}


def content_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files, in order; of no time, owner or mode.

    Left out is the one file that BentoML writes anew.
    """
    digest = hashlib.sha256()
    for file in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        if "__pycache__" in file or file == BUILT_BY_BENTOML:
            continue
        content = (folder / file).read_bytes()
        digest.update(f"{file}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
