"""Hold-out samples in a folder: who can read them, how they expire, and on S3."""

import hashlib
import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from deploy.local_servers import Servers

from churn_pipeline.datasets import DeferredDataset, HoldoutSampleDataset
from churn_pipeline.evaluation.holdout_sample import read_sample

ROWS = pd.DataFrame({"months": [1.0, 2.5], "plan": ["AA", ""]})
OTHER = ROWS.assign(months=0.0)
TODAY = datetime.now(UTC).date()


def samples(root: Path | str, keep_days: int = 365) -> HoldoutSampleDataset:
    return HoldoutSampleDataset(str(root), "holdout_samples/telco", keep_days)


def age(root: Path, days: int) -> None:
    """Rename the files as if they had been written some days ago."""
    for file in (root / "holdout_samples/telco").glob("*.parquet"):
        file.rename(file.with_name(f"{TODAY - timedelta(days=days)}_{file.name.partition('_')[2]}"))


def check(dataset: HoldoutSampleDataset) -> None:
    """Save two samples and load them."""
    assert dataset.load().tags == {}
    dataset.save(ROWS)
    dataset.save(OTHER)
    loaded = dataset.load()
    assert len(loaded.contents) == 2
    for digest, read in loaded.contents.items():
        assert hashlib.sha256(read()).hexdigest() == digest
    last = loaded.tags["sample_digest"]
    pd.testing.assert_frame_equal(read_sample(loaded.contents[last]()), OTHER)
    assert loaded.tags == {
        "sample_digest": last,
        "sample_rows": "2",
        "sample_path": f"holdout_samples/telco/{TODAY}_{last}.parquet",
        "sample_expires": str(TODAY + timedelta(days=365)),
    }


def test_samples_are_found_by_digest(tmp_path: Path) -> None:
    check(samples(tmp_path))
    samples(tmp_path).save(OTHER)
    assert len(list((tmp_path / "holdout_samples/telco").iterdir())) == 3, "two samples and the name of the last"


def test_samples_are_kept_on_s3(s3: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    root = f"{s3.environment()['CHURN_DATA_ROOT']}/samples_of_a_test"
    check(samples(root))
    assert sorted(path.rsplit("/", 1)[1][:11] for path in fsspec.filesystem("s3").find(root)) == [
        f"{TODAY}_",
        f"{TODAY}_",
        "latest.json",
    ]


def test_only_the_owner_can_read_a_sample_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        samples(tmp_path).save(ROWS)
    finally:
        os.umask(before)
    folder = tmp_path / "holdout_samples/telco"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_files_have_the_access_of_a_folder_that_a_team_has_opened(tmp_path: Path) -> None:
    folder = tmp_path / "holdout_samples/telco"
    folder.mkdir(parents=True)
    folder.chmod(0o750)
    samples(tmp_path).save(ROWS)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750


def test_an_expired_sample_is_not_read_and_the_next_save_removes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples(tmp_path).save(ROWS)
    age(tmp_path, days=30)
    assert len(samples(tmp_path, keep_days=31).load().contents) == 1
    assert samples(tmp_path, keep_days=30).load().contents == {}
    with caplog.at_level(logging.INFO):
        samples(tmp_path, keep_days=30).save(OTHER)
    assert "Removed hold-out samples older than 30 days (holdout_sample.keep_days): 1" in caplog.text
    assert [file.name[:10] for file in (tmp_path / "holdout_samples/telco").glob("*.parquet")] == [str(TODAY)]


def test_a_file_of_a_killed_process_is_not_read_but_expires(tmp_path: Path) -> None:
    samples(tmp_path).save(ROWS)
    [whole] = (tmp_path / "holdout_samples/telco").glob("*.parquet")
    left, other = whole.with_name(f"2020-01-31_{'a' * 64}.parquet.17.part"), whole.with_name("notes.parquet")
    for file in (left, other):
        file.write_bytes(b"half")
    assert set(samples(tmp_path, keep_days=10**5).load().contents) == {samples(tmp_path).load().tags["sample_digest"]}
    samples(tmp_path).save(ROWS)
    assert not left.exists()
    assert other.exists()


def test_the_name_of_the_last_sample_has_no_customers_value(tmp_path: Path) -> None:
    samples(tmp_path).save(ROWS.assign(plan="SECRET"))
    folder = tmp_path / "holdout_samples/telco"
    assert "SECRET" not in (folder / "latest.json").read_text(encoding="utf-8")
    assert json.loads((folder / "latest.json").read_text(encoding="utf-8"))["sample_rows"] == "2"


def test_a_deferred_dataset_is_read_when_it_is_needed(tmp_path: Path) -> None:
    dataset = DeferredDataset(dataset={"type": "text.TextDataset", "filepath": str(tmp_path / "file.txt")})
    read = dataset.load()
    assert read() is None
    assert not dataset.exists()
    (tmp_path / "file.txt").write_text("later", encoding="utf-8")
    assert read() == "later"
    with pytest.raises(Exception, match="only ever read"):
        dataset.save("text")
