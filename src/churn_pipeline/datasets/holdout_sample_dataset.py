"""Hold-out samples: a folder of files that only the owner can read, and that expire."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
from kedro.io import AbstractDataset
from kedro.io.core import get_protocol_and_path

from churn_pipeline.datasets.files import LOCAL, replacing
from churn_pipeline.evaluation.holdout_sample import DIGEST_TAG, HoldoutSamples, sample_content

logger = logging.getLogger(__name__)

# A file that a killed process left behind ends in .part; it is never read, but expires like a sample.
NAME = re.compile(r"(?P<written>\d{4}-\d\d-\d\d)_(?P<digest>[0-9a-f]{64})\.parquet(?P<left>\.\d+\.part)?")
LATEST = "latest.json"


class HoldoutSampleDataset(AbstractDataset[pd.DataFrame, HoldoutSamples]):
    """Samples of held-out customers, one file for each day and content: ``2026-11-22_<SHA-256>.parquet``.

    On a local disk, a new folder can be read by its owner alone, and files have the folder's access. A save removes expired
    samples.

    Parameters
    ----------
    path
        The folder in which all data is stored, on any file system of fsspec.
    folder
        The samples' folder in it.
    keep_days
        Number of days after which a sample is no longer read.
    credentials
        Arguments of the file system.

    Examples
    --------
    >>> from churn_pipeline.datasets import HoldoutSampleDataset
    >>> samples = HoldoutSampleDataset("data", "holdout_samples/telco", keep_days=365).load()  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str,
        folder: str,
        keep_days: int,
        credentials: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        protocol, root = get_protocol_and_path(path)
        self._is_local = protocol == LOCAL
        self._files = fsspec.filesystem(protocol, **({} if self._is_local else credentials or {}))
        self._folder, self._path = folder, f"{root.rstrip('/')}/{folder}"
        self._keep = timedelta(days=keep_days)
        self.metadata = metadata

    def save(self, data: pd.DataFrame) -> None:
        """Remove expired samples and write the sample, whole or not at all."""
        content = sample_content(data)
        digest, today = hashlib.sha256(content).hexdigest(), datetime.now(UTC).date()
        name = f"{today}_{digest}.parquet"
        self._make_folder()
        self._remove_expired(today)
        self._write(name, content)
        tags = {
            DIGEST_TAG: digest,
            "sample_rows": str(len(data)),
            "sample_path": f"{self._folder}/{name}",
            "sample_expires": str(today + self._keep),
        }
        self._write(LATEST, json.dumps(tags, indent=1).encode())

    def load(self) -> HoldoutSamples:
        """List the samples that have not expired; each is read when its function is called."""
        today = datetime.now(UTC).date()
        latest = f"{self._path}/{LATEST}"
        return HoldoutSamples(
            tags=json.loads(self._files.cat_file(latest)) if self._exists() else {},
            contents={
                found["digest"]: partial(self._files.cat_file, f"{self._path}/{found[0]}")
                for found in self._list()
                if not found["left"] and today < self._expires(found)
            },
        )

    def _list(self) -> Iterator[re.Match[str]]:
        """Yield the names of all samples, in order of their days."""
        self._files.invalidate_cache()
        if not self._files.isdir(self._path):
            return
        for path in sorted(self._files.ls(self._path, detail=False)):
            if found := NAME.fullmatch(path.rsplit("/", 1)[-1]):
                yield found

    def _expires(self, found: re.Match[str]) -> date:
        return date.fromisoformat(found["written"]) + self._keep

    def _make_folder(self) -> None:
        if self._is_local:
            folder = Path(self._path)
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _remove_expired(self, today: date) -> None:
        expired = [found[0] for found in self._list() if today >= self._expires(found)]
        for name in expired:
            with suppress(FileNotFoundError):  # another training has removed it
                self._files.rm_file(f"{self._path}/{name}")
        if expired:
            days = self._keep.days
            logger.info(
                "Removed hold-out samples older than %d days (holdout_sample.keep_days): %d", days, len(expired)
            )

    def _write(self, name: str, content: bytes) -> None:
        if not self._is_local:
            self._files.pipe_file(f"{self._path}/{name}", content)  # object stores write an object whole or not at all
            return
        folder = Path(self._path)
        with replacing(folder / name) as part:
            part.touch(mode=0o600)
            part.write_bytes(content)
            part.chmod(folder.stat().st_mode & 0o666)

    def _exists(self) -> bool:
        return bool(self._files.exists(f"{self._path}/{LATEST}"))

    def _describe(self) -> dict[str, Any]:
        return {"folder": self._folder, "keep_days": self._keep.days}
