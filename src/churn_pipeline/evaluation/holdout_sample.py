"""The hold-out sample: the customers' rows on which packaging checks a version's ONNX model."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from churn_pipeline.contract.table import Contract

# Tag of a version that has a sample: the SHA-256 of its file
DIGEST_TAG = "sample_digest"


class SampleSettings(BaseModel):
    """Size of the hold-out sample, and how long it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rows: int = Field(ge=100, description="Largest number of rows; of a larger hold-out, rows are chosen.")
    keep_days: int = Field(
        ge=1, description="Days after which a sample is no longer read, and the next training removes it."
    )


@dataclass(frozen=True)
class HoldoutSamples:
    """The samples of one table that have not expired.

    Attributes
    ----------
    tags
        Tags of a version that name the sample that was saved last: digest, rows, path and day of expiry.
    contents
        By digest, a function that reads the sample's file.
    """

    tags: Mapping[str, str]
    contents: Mapping[str, Callable[[], bytes]]


def draw_sample(
    model: Any,
    features: pd.DataFrame,
    customers: pd.DataFrame,
    contract: Contract,
    value_column: str | None,
    max_rows: int,
) -> pd.DataFrame:
    """Choose held-out customers for the equivalence check.

    Of a large hold-out, the sample has a row of each level of each categorical feature, for at most half of the sample, and a
    row of each of equally large groups by churn probability. A hash of the row decides, so the choice depends neither on the
    order of the rows nor on a seed.

    Parameters
    ----------
    model
        The fitted model.
    features, customers
        The held-out customers, as the model takes them and with all columns; rows in the same order.
    value_column
        Column that the decision rule takes customer values from; None if all customers have one value.

    Returns
    -------
    pandas.DataFrame
        The features, and the value column if it is not a feature; no ids. At most `max_rows` rows, by churn probability.
    """
    rows = features.reset_index(drop=True)
    if value_column is not None and value_column not in rows:
        rows[value_column] = customers[value_column].array
    hashes = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    order = np.lexsort((hashes, model.predict_proba(features)[:, 1]))
    if len(rows) > max_rows:
        by_hash = rows.iloc[np.argsort(hashes, kind="stable")]
        levels = [by_hash.drop_duplicates(name).index for name in contract.categorical]
        chosen = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *levels]))
        chosen = chosen[np.argsort(hashes[chosen], kind="stable")][: max_rows // 2]
        groups = np.array_split(order, max_rows - len(chosen))
        lowest = [group[np.argmin(hashes[group])] for group in groups]
        order = order[np.isin(order, np.concatenate([chosen, lowest]))]
    return rows.iloc[order].reset_index(drop=True)


def sample_content(rows: pd.DataFrame) -> bytes:
    """Write a sample as Parquet; the same rows give the same bytes."""
    return bytes(rows.to_parquet(index=False))


def read_sample(content: bytes) -> pd.DataFrame:
    """Read a sample from its file's content."""
    return pd.read_parquet(io.BytesIO(content))
