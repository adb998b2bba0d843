"""Nodes of packaging: accept a registered version, check its ONNX model for equivalence, and collect the Bento's content."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import DecisionRule
from churn_pipeline.datasets.bento_dataset import BentoContent
from churn_pipeline.datasets.signing import BundleSigner
from churn_pipeline.documents import CARD_FILE, DECISION_FILE, MODEL_FILE, TRAINING_PROFILE_FILE
from churn_pipeline.evaluation.model_record import RegisteredVersion
from churn_pipeline.modelling.hard_rows import hard_rows
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.pipelines.packaging.equivalence import (
    Comparison,
    EquivalenceError,
    Predictors,
    describe_customers,
    describe_hard_rows,
)
from churn_pipeline.pipelines.packaging.rows import decision_rule, refusal
from churn_pipeline.pipelines.packaging.sbom import bill_of_materials
from churn_pipeline.serving.bundle import (
    CONTRACT_FILE,
    FOLDER,
    MANIFEST_FILE,
    SAMPLE_FILE,
    SBOM_FILE,
    Manifest,
    TrainingProfile,
    open_session,
)
from churn_pipeline.serving.sample import make_sample

logger = logging.getLogger(__name__)

EQUIVALENCE_FILE = "equivalence_report.json"
LOCK_FILE = "requirements.txt"
# Name of the training profile in versions that were registered before it was renamed.
FORMER_PROFILE_FILE = "reference.json"
HOLDOUT = "holdout."
# Metrics that, with the threshold and the profit, would reveal the costs to a caller of the service; the model card has them.
NOT_SERVED = ("threshold", "predicted_profit", "profit_of_contacting_all", "hindsight_", "empc")
LABELS = ("table", "model_name", "model_version", "run_id", "commit", "candidate", "model_digest", "threshold")


class PackagingSettings(BaseModel):
    """Which version is packaged, and how its ONNX model is checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | int | None = Field(
        default=None,
        description="Alias or number of the version; without it the champion, or the challenger if there is no champion.",
    )
    tolerance: float = Field(default=1e-6, gt=0, lt=1, description="Largest allowed difference in churn probability.")
    hard_rows: int = Field(default=20_000, ge=100, description="Number of hard rows made up for the equivalence check.")
    base_image: str = Field(
        default="", description="The image that the service's image is built on; the catalog uses it."
    )


def accept_version(version: RegisteredVersion, contract: Contract) -> tuple[RegisteredVersion, dict[str, str]]:
    """Accept a registered version if it was trained under the current contract and is complete.

    Returns
    -------
    version : RegisteredVersion
    tags : dict of str
        Model and version for the MLflow run.

    Raises
    ------
    ProjectError
        If the version was trained under another contract, or a document is missing or invalid.
    """
    theirs, ours = version.tags.get("digest.contract", "none"), contract.digest()
    if theirs != ours:
        raise ProjectError(
            refusal(version),
            f"it was trained under another contract of table '{contract.name}' ({theirs[:12]}…) than the one in conf "
            f"({ours[:12]}…). Train again; then promote the challenger, or choose it: --params packaging.model=challenger",
        )
    documents = dict(version.documents)
    if FORMER_PROFILE_FILE in documents:
        documents.setdefault(TRAINING_PROFILE_FILE, documents.pop(FORMER_PROFILE_FILE))
    missing = [name for name in (CARD_FILE, DECISION_FILE, TRAINING_PROFILE_FILE) if name not in documents]
    if missing:
        raise ProjectError(refusal(version), f"it was registered without {' and '.join(missing)}: train again")
    try:
        decision_rule(version)
    except ValidationError:
        problem = f"its {DECISION_FILE} does not fit this version of the code: train again"
        raise ProjectError(refusal(version), problem) from None
    logger.info("Packaging version %s of %s (%s)", version.version, version.name, version.tags.get("candidate"))
    return replace(version, documents=documents), {"model": version.name, "version": version.version}


def load_onnx_model(version: RegisteredVersion, contract: Contract) -> onnx.ModelProto:
    """Load the ONNX model that the training registered; convert a version that was registered without one.

    Raises
    ------
    ProjectError
        If the registered file is not the one that the training made.
    """
    trained = version.tags.get("model_digest", "none")
    content = version.files.get(MODEL_FILE)
    if content is None:
        loaded = convert_model(version.model, contract.numeric, contract.categorical)
    elif (digest := hashlib.sha256(content).hexdigest()) != trained:
        raise ProjectError(
            refusal(version),
            f"the SHA-256 of its file {MODEL_FILE} ({digest[:12]}…) differs from its training run's model_digest "
            f"({trained[:12]}…), so the file was changed: train again",
        )
    else:
        loaded = onnx.load_model_from_string(content)
    digest = model_digest(loaded)
    if digest != trained:
        logger.warning(
            "Model digest %s… differs from the training's %s…: the code or a library has changed",
            digest[:12],
            trained[:12],
        )
    return loaded


def check_equivalence(
    version: RegisteredVersion,
    onnx_model: onnx.ModelProto,
    rows: pd.DataFrame,
    contract: Contract,
    settings: PackagingSettings,
    seed: int,
) -> dict[str, Any]:
    """Check that the ONNX model gives the trained model's answers, on held-out customers and on rows made up to be hard.

    Parameters
    ----------
    rows
        From `choose_rows`.

    Returns
    -------
    dict
        ``model_digest``, ``tolerance``, ``threshold``, and for each set of rows their number, the largest difference in
        churn probability, and the number of decisions that differ.

    Raises
    ------
    EquivalenceError
        If a row differs by more than the tolerance, or gets another decision away from its threshold.
    """
    columns, rule = (contract.numeric, contract.categorical), decision_rule(version)
    features = rows[[*contract.numeric, *contract.categorical]]
    made_up = hard_rows(features, version.model, *columns, np.random.default_rng(seed), limit=settings.hard_rows)
    session = open_session(onnx_model.SerializeToString(deterministic=True))
    predictors = Predictors(version.model, session, *columns, settings.tolerance)
    held_out = _Compared("held-out customers", features, rows, describe_customers)
    describe = partial(describe_hard_rows, rows=made_up, origins=features)
    reports = _reports(
        predictors, rule, [held_out, _Compared("hard rows", made_up, rows.iloc[made_up.index], describe)]
    )
    largest = max(report["largest_difference"] for report in reports.values())
    compared = f"{len(features) + len(made_up):,}"
    logger.info("Equivalent within %g on %s rows (largest difference %.1e)", settings.tolerance, compared, largest)
    return {
        "model_digest": model_digest(onnx_model),
        "tolerance": settings.tolerance,
        "threshold": rule.threshold,
        "rows": reports,
    }


class _Compared(NamedTuple):
    """Rows to compare, their customers with all columns, and how a difference is described."""

    name: str
    rows: pd.DataFrame
    customers: pd.DataFrame
    describe: Callable[[str, Comparison], str]


def _reports(predictors: Predictors, rule: DecisionRule, compared: list[_Compared]) -> dict[str, Any]:
    """Compare the two models on each set of rows; raise an `EquivalenceError` that lists every set with a difference."""
    reports, problems = {}, []
    for name, rows, customers, describe in compared:
        for suffix, comparison in predictors.compare(rows, _thresholds(rule, rows, customers)):
            reports[name + suffix] = comparison.report()
            if len(comparison.failing_rows):
                problems.append(describe(name + suffix, comparison))
    _raise_problems(problems, predictors.tolerance)
    return reports


def _thresholds(rule: DecisionRule, rows: pd.DataFrame, customers: pd.DataFrame) -> np.ndarray:
    """The threshold of each row: by its feature, or by the column of its customer; of shape (n,)."""
    if rule.column is None:
        return np.full(len(rows), rule.threshold)
    known = rows if rule.column in rows else customers
    return rule.thresholds([None if pd.isna(amount) else amount for amount in known[rule.column].to_list()])


def _raise_problems(problems: list[str], tolerance: float) -> None:
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise EquivalenceError(
            f"The ONNX model differs from the trained model: by more than {tolerance:g} in churn probability, or in a "
            f"decision. Nothing was packaged.\n{listed}"
        )


def collect_content(
    version: RegisteredVersion,
    onnx_model: onnx.ModelProto,
    contract: Contract,
    equivalence_report: dict[str, Any],
    lock: str,
    signer: BundleSigner | None = None,
) -> BentoContent:
    """Collect the bundle: the model and the files that belong to it, with a manifest.

    Only the decision rule and the model card contain costs. The service shows neither.

    Parameters
    ----------
    equivalence_report
        Of this model, from `check_equivalence`.
    lock
        The packages of the image.
    signer
        Signs the bundle when the Bento is built; None for a bundle without a signature.
    """
    digest = model_digest(onnx_model)
    if equivalence_report["model_digest"] != digest:
        raise EquivalenceError("The equivalence report is of another model: run the whole packaging pipeline.")
    profile = TrainingProfile.model_validate_json(version.documents[TRAINING_PROFILE_FILE])
    model = onnx_model.SerializeToString(deterministic=True)
    sample = make_sample(contract, profile, open_session(model), contract.numeric, contract.categorical)
    texts = {
        CONTRACT_FILE: contract.model_copy(update={"costs": None}).model_dump_json(exclude_defaults=True, indent=1),
        TRAINING_PROFILE_FILE: profile.model_dump_json(),
        CARD_FILE: version.documents[CARD_FILE],
        DECISION_FILE: version.documents[DECISION_FILE],
        SAMPLE_FILE: sample.model_dump_json(),
        EQUIVALENCE_FILE: json.dumps(equivalence_report, indent=1),
        SBOM_FILE: bill_of_materials(lock, version.name, version.version, digest, version.created),
    }
    bundle = {name: text.encode() for name, text in texts.items()}
    manifest = _make_manifest(version, contract, digest, bundle)
    bundle[MODEL_FILE] = model
    bundle[MANIFEST_FILE] = manifest.model_dump_json(indent=1).encode()
    return BentoContent(
        files={LOCK_FILE: lock.encode(), **{f"{FOLDER}/{name}": content for name, content in bundle.items()}},
        labels={name: str(getattr(manifest, name)) for name in LABELS},
        description=f"{FOLDER}/{CARD_FILE}",
        signer=signer,
    )


def _make_manifest(version: RegisteredVersion, contract: Contract, digest: str, files: Mapping[str, bytes]) -> Manifest:
    tags = version.tags
    return Manifest(
        table=contract.name,
        model_name=version.name,
        model_version=version.version,
        run_id=version.run_id,
        commit=tags.get("git.commit", "unknown") + ("-dirty" if tags.get("git.dirty") == "true" else ""),
        created=version.created,
        candidate=tags.get("candidate", "unknown"),
        model_digest=digest,
        contract_digest=contract.digest(),
        threshold=decision_rule(version).threshold,
        metrics=_holdout_metrics(version.metrics),
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )


def _holdout_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    return {
        name.removeprefix(HOLDOUT): value
        for name, value in sorted(metrics.items())
        if name.startswith(HOLDOUT) and not name.removeprefix(HOLDOUT).startswith(NOT_SERVED)
    }
