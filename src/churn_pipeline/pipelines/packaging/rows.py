"""Held-out customers of a version's own training, on which its ONNX model is checked."""

import hashlib
import logging
from collections.abc import Callable, Mapping

import pandas as pd

from churn_pipeline.contract.cells import model_inputs, table_digest
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import DecisionRule
from churn_pipeline.documents import DECISION_FILE
from churn_pipeline.evaluation.holdout_sample import (
    DIGEST_TAG,
    HoldoutSamples,
    SampleSettings,
    draw_sample,
    read_sample,
)
from churn_pipeline.evaluation.model_record import RegisteredVersion

logger = logging.getLogger(__name__)


def decision_rule(version: RegisteredVersion) -> DecisionRule:
    """Return the decision rule of a version's training."""
    return DecisionRule.model_validate_json(version.documents[DECISION_FILE])


def refusal(version: RegisteredVersion) -> str:
    """Return the subject of an error about a version."""
    return f"Version {version.version} of the model '{version.name}' cannot be packaged"


def choose_rows(
    version: RegisteredVersion,
    samples: HoldoutSamples,
    read_holdout: Callable[[], pd.DataFrame | None],
    contract: Contract,
    settings: SampleSettings,
) -> pd.DataFrame:
    """Choose the held-out customers of the version's own training: its sample, or else one drawn from the same hold-out.

    Parameters
    ----------
    read_holdout
        Reads the held-out customers of the last training in this folder; returns None without one.

    Returns
    -------
    pandas.DataFrame
        The features, and the column that the decision rule takes values from.

    Raises
    ------
    ProjectError
        If there is neither, or the sample's file was changed.
    """
    tags = version.version_tags
    digest = tags.get(DIGEST_TAG, "none")
    if digest in samples.contents:
        content = samples.contents[digest]()
        if (found := hashlib.sha256(content).hexdigest()) != digest:
            problem = f"the SHA-256 of its hold-out sample {tags['sample_path']} is {found[:12]}…, not {digest[:12]}…"
            raise ProjectError(refusal(version), f"{problem}, so the file was changed: restore it, or train again")
        return read_sample(content)
    customers = read_holdout()
    if customers is None or table_digest(customers) != version.tags.get("digest.holdout"):
        raise ProjectError(refusal(version), _missing_sample(tags))
    logger.info("The version has no hold-out sample; drawing one from the hold-out of its training")
    column, features = decision_rule(version).column, model_inputs(customers, contract)
    return draw_sample(version.model, features, customers, contract, column, settings.max_rows)


def _missing_sample(tags: Mapping[str, str]) -> str:
    if DIGEST_TAG not in tags:
        return (
            "it was registered without a hold-out sample, and the hold-out here is that of another training: train again; then "
            "promote the challenger, or choose it: --params packaging.model=challenger"
        )
    return (
        f"its hold-out sample {tags['sample_path']} (kept until {tags['sample_expires']}) is not under data_root. If it "
        "expired, train again; if not, set data_root to that of its training"
    )
