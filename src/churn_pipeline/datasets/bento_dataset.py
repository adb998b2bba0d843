"""Bentos: archives that BentoML serves and turns into images, built from a bundle and the service's code."""

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

from churn_pipeline.datasets.files import StoredFile, path_on_this_machine
from churn_pipeline.datasets.signing import BundleSigner
from churn_pipeline.documents import BUNDLE_FOLDER, SIGNATURE_FILE

if TYPE_CHECKING:  # importing bentoml takes 0.25 s, and Kedro imports this module for every command
    from bentoml import Bento

logger = logging.getLogger(__name__)

SERVICE = "churn_pipeline.serving.service:ChurnService"
# The modules that the service imports; no other code is packaged, so its dependencies are not needed.
CODE = (
    "__init__.py",
    "costs.py",
    "documents.py",
    "contract/__init__.py",
    "contract/errors.py",
    "contract/label.py",
    "contract/mistakes.py",
    "contract/table.py",
    "serving/**/*",
)
RECIPE = "Dockerfile.j2"
LONGEST_NAME = 63  # of a Bento
BUILT_BY_BENTOML = "bentofile.yaml"


@dataclass(frozen=True)
class BentoContent:
    """The content of a Bento besides the service's code.

    Attributes
    ----------
    files
        Contents by path.
    labels
        Labels of the Bento and its image.
    description
        The path of the file that describes the Bento.
    signer
        Signs the bundle; None for a bundle without a signature.
    """

    files: Mapping[str, bytes]
    labels: Mapping[str, str]
    description: str
    signer: BundleSigner | None = None


class BentoDataset(AbstractDataset[BentoContent, "Bento"]):
    """Builds a Bento into the project's own store and exports it; a load returns the Bento saved last.

    The version is the digest of the whole content, so the same content gives the same Bento. The signature is not part of it.

    Parameters
    ----------
    name
        The Bento's name; see `name_in_store`.
    store
        The store's folder on this machine, used as BENTOML_HOME; the user's own store stays untouched.
    export
        ``filepath`` of the file to export the Bento to, at any address that fsspec knows, and its ``credentials``.
    package
        The folder of this project's package.
    recipe
        A Jinja template of the image's Dockerfile, with the variables ``labels`` and ``base_image``.
    base_image
        The image to build on.

    Examples
    --------
    >>> from churn_pipeline.datasets import BentoDataset
    >>> files = {"export": {"filepath": "churn.bento"}, "package": "src/churn_pipeline", "recipe": "bentos/Dockerfile.j2"}
    >>> bento = BentoDataset("churn", "bentos/store", base_image="python:3.11-slim", **files).load()  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str,
        store: str,
        export: dict[str, Any],
        package: str,
        recipe: str,
        base_image: str,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.name_in_store = name_in_store(name)
        self._store = path_on_this_machine(store, "The store of Bentos")
        self._export = StoredFile(**export)
        self._package, self._recipe = Path(package), Path(recipe)
        self._base_image = base_image
        self.metadata = metadata

    def save(self, data: BentoContent) -> None:
        """Build the Bento unless the store already has it, and export it.

        Raises
        ------
        DatasetError
            If BentoML cannot build it; the message ends with BentoML's output. Also if the store's files change meanwhile.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.write_sources(data, Path(folder))
            version = content_digest(Path(folder))[:16]
            if not self._has_intact(version):
                self._build(Path(folder), version)
        self._sign(version, data.signer)
        # BentoML writes this file only when it builds; a load must return the Bento saved last.
        self._latest.write_text(version, encoding="utf-8")
        bento = self.load()
        with tempfile.TemporaryDirectory() as folder:
            exported = Path(bento.export(str(Path(folder) / self._export.name)))
            self._export.write_from(exported)
            megabytes = exported.stat().st_size / 1e6
        logger.info("Built %s, %.1f MB: %s", bento.tag, megabytes, self._export.address)

    def load(self) -> Bento:
        """Return the Bento that was saved last."""
        import bentoml

        return bentoml.Bento.from_path(self._built / self._latest.read_text(encoding="utf-8").strip())

    @property
    def _built(self) -> Path:
        """BentoML's folder for the versions of this Bento."""
        return self._store / "bentos" / self.name_in_store

    @property
    def _latest(self) -> Path:
        """BentoML's file that names the latest version."""
        return self._built / "latest"

    def write_sources(self, data: BentoContent, folder: Path) -> None:
        """Write the input of `bentoml build`: the service's code, the bundle, the recipe and the options."""
        code = (file for pattern in CODE for file in self._package.glob(pattern) if "__pycache__" not in file.parts)
        files = {
            f"churn_pipeline/{file.relative_to(self._package).as_posix()}": file.read_bytes()
            for file in code
            if file.is_file()
        }
        labels = json.dumps(dict(data.labels), ensure_ascii=False, sort_keys=True)
        variables = f"{{% set base_image = {json.dumps(self._base_image)} %}}\n{{% set labels = {labels} %}}\n"
        recipe = variables + self._recipe.read_text(encoding="utf-8")
        options = {
            "service": SERVICE,
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

    def _has_intact(self, version: str) -> bool:
        """Return whether the store has the Bento as it was built; remove a changed or incomplete one."""
        built = self._built / version
        if (built / "bento.yaml").is_file() and content_digest(built / "src").startswith(version):
            return True
        shutil.rmtree(built, ignore_errors=True)
        return False

    def _build(self, folder: Path, version: str) -> None:
        # A separate process, because BentoML changes the working directory and imports the service from it.
        environment = {
            **os.environ,
            "BENTOML_HOME": str(self._store),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "bentoml", "build", "--version", version, "--output", "tag", "."]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            output = f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
            raise DatasetError(f"BentoML could not build {self.name_in_store}; its last output was:\n{output}")

    def _sign(self, version: str, signer: BundleSigner | None) -> None:
        folder = self._built / version / "src" / BUNDLE_FOLDER
        if signer is not None:
            signer.sign(folder)
            if not self._has_intact(version):
                raise DatasetError(
                    f"{self.name_in_store} was changed in {self._store} while it was signed: package it again"
                )
            logger.info("Signed the bundle: %s", SIGNATURE_FILE)
            return
        (folder / SIGNATURE_FILE).unlink(missing_ok=True)
        logger.info("The bundle is not signed: no signing key is set (CHURN_SIGNING_KEY)")

    def _exists(self) -> bool:
        return self._latest.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"name": self.name_in_store, "store": str(self._store), "filepath": self._export.address}


def name_in_store(name: str) -> str:
    """Return a name that BentoML accepts: lower case, with underscores for other characters, at most 63 characters.

    Examples
    --------
    >>> name_in_store("Main.Churn.Télco_")
    'main.churn.t_lco'
    """
    return re.sub(r"[^a-z0-9._-]", "_", name.lower()).lstrip("._-")[:LONGEST_NAME].rstrip("._-")


def content_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of a folder's files, in order of their names.

    The file that BentoML rewrites and the bundle's signature are left out, as are times, owners and modes.
    """
    digest = hashlib.sha256()
    for file in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        if "__pycache__" in file or file in (BUILT_BY_BENTOML, f"{BUNDLE_FOLDER}/{SIGNATURE_FILE}"):
            continue
        content = (folder / file).read_bytes()
        digest.update(f"{file}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()
