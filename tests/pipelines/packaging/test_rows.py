"""The rows of the equivalence check are those of the version's own training."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from tests.pipelines.packaging.conftest import Registered

from churn_pipeline.contract.cells import table_digest
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.evaluation.holdout_sample import HoldoutSamples, SampleSettings, draw_sample, sample_content
from churn_pipeline.pipelines.packaging.rows import choose_rows

SETTINGS = SampleSettings(max_rows=150, keep_days=365)
NAMED = {"sample_digest": "", "sample_path": "holdout_samples/customers/f.parquet", "sample_expires": "2027-01-31"}
EMPTY = HoldoutSamples({}, {})


@pytest.fixture(scope="module")
def drawn(registered: Registered) -> pd.DataFrame:
    contract, customers = registered.contract, registered.customers
    return draw_sample(registered.version.model, registered.features, customers, contract, "charge", SETTINGS.max_rows)


def named(given: Registered, digest: str, holdout: pd.DataFrame | None = None) -> Registered:
    """The version with the tags of a training: its sample and its hold-out."""
    tags = {**given.version.tags, "digest.holdout": "none" if holdout is None else table_digest(holdout)}
    version = replace(given.version, tags=tags, version_tags={**NAMED, "sample_digest": digest} if digest else {})
    return given._replace(version=version)


def chosen(given: Registered, samples: HoldoutSamples, read: Callable[[], pd.DataFrame | None]) -> pd.DataFrame:
    return choose_rows(given.version, samples, read, given.contract, SETTINGS)


def not_read() -> None:
    raise AssertionError("the hold-out was read")


def test_a_version_is_checked_on_its_own_sample(registered: Registered, drawn: pd.DataFrame) -> None:
    import hashlib

    content, later = sample_content(drawn), sample_content(drawn[:-1])
    digest = hashlib.sha256(content).hexdigest()
    samples = HoldoutSamples({"sample_digest": "later"}, {"later": lambda: later, digest: lambda: content})
    pd.testing.assert_frame_equal(chosen(named(registered, digest), samples, not_read), drawn)


def test_a_changed_sample_is_refused(registered: Registered, drawn: pd.DataFrame) -> None:
    samples = HoldoutSamples({}, {"a" * 64: lambda: sample_content(drawn)})
    with pytest.raises(
        ProjectError, match=r"Version 3 .*\n.*SHA-256 of its hold-out sample .*f\.parquet .* restore it, or"
    ):
        chosen(named(registered, "a" * 64), samples, not_read)


@pytest.mark.parametrize("digest", ["", "a" * 64])
def test_without_a_sample_the_same_is_drawn_from_the_hold_out_of_its_training(
    digest: str, registered: Registered, drawn: pd.DataFrame
) -> None:
    given = named(registered, digest, registered.customers)
    pd.testing.assert_frame_equal(chosen(given, EMPTY, lambda: registered.customers), drawn)


@pytest.mark.parametrize(
    ("digest", "said"),
    [
        ("", r"registered without a hold-out sample, .* another training: train again; .*packaging\.model=challenger"),
        (
            "a" * 64,
            r"f\.parquet \(kept until 2027-01-31\) is not under data_root\. If it expired, train again; if not, set",
        ),
    ],
)
def test_the_hold_out_of_another_training_is_not_used(digest: str, said: str, registered: Registered) -> None:
    given = named(registered, digest, registered.customers)
    for other in (registered.customers[:-1], None):
        with pytest.raises(ProjectError, match=said):
            chosen(given, EMPTY, lambda other=other: other)
