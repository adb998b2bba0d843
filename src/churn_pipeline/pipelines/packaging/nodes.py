"""Nodes of packaging: compile a registered version, prove the ONNX model equal, and gather what is shipped."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from churn_pipeline.contract.errors import ProjectError, TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.datasets.bento_dataset import BentoContent
from churn_pipeline.datasets.mlflow_datasets import RegisteredVersion
from churn_pipeline.documents import CARD_FILE, TRAINING_PROFILE_FILE
from churn_pipeline.modelling.hard_rows import hard_rows
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.pipelines.packaging.equivalence import (
    Answers,
    EquivalenceError,
    ask,
    ask_alone,
    describe_customers,
    describe_made_up,
    some_rows,
)
from churn_pipeline.pipelines.packaging.sbom import bill_of_materials
from churn_pipeline.serving.bundle import (
    CONTRACT_FILE,
    FOLDER,
    MANIFEST_FILE,
    MODEL_FILE,
    SBOM_FILE,
    Manifest,
    TrainingProfile,
    open_session,
)

logger = logging.getLogger(__name__)

EQUIVALENCE_FILE = "equivalence_report.json"
LOCK_FILE = "requirements.txt"
# The training profile's name in versions that were registered before it was renamed.
FORMER_PROFILE_FILE = "reference.json"
HOLDOUT = "holdout."
THRESHOLD = f"{HOLDOUT}threshold"


class PackagingSettings(BaseModel):
    """What is packaged, and how it is proven."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | int | None = Field(
        default=None, description="An alias or a number of the registered model; without it champion, else challenger."
    )
    tolerance: float = Field(default=1e-6, gt=0, lt=1, description="Largest difference in churn probability.")
    hard_rows: int = Field(default=20_000, ge=100, description="How many hard rows are made up for the proof.")


def accept(version: RegisteredVersion, contract: Contract) -> tuple[RegisteredVersion, dict[str, str]]:
    """Take a registered version, if it was trained under the contract that holds now and has all that a package needs.

    Returns
    -------
    version : RegisteredVersion
    tags : dict of str
        What is packaged, for the MLflow run.

    Raises
    ------
    TableError
        When its run knows of another contract, or it was registered without something.
    """
    subject = f"Version {version.version} of the model '{version.name}' cannot be packaged"
    theirs, ours = version.tags.get("digest.contract", "none"), contract.digest()
    if theirs != ours:
        raise ProjectError(
            subject,
            f"it was trained under another contract of table '{contract.name}' ({theirs[:12]}…) than the one in conf "
            f"({ours[:12]}…). Train again; then promote the challenger, or name it: --params packaging.model=challenger",
        )
    documents = dict(version.documents)
    if FORMER_PROFILE_FILE in documents:
        documents.setdefault(TRAINING_PROFILE_FILE, documents.pop(FORMER_PROFILE_FILE))
    lacking = [name for name in (CARD_FILE, TRAINING_PROFILE_FILE) if name not in documents]
    lacking += [] if THRESHOLD in version.metrics else ["threshold"]
    if lacking:
        raise ProjectError(subject, f"it was registered without {' and '.join(lacking)}: train again")
    logger.info("Packaging version %s of %s (%s)", version.version, version.name, version.tags.get("candidate"))
    return replace(version, documents=documents), {"model": version.name, "version": version.version}


def convert_version(version: RegisteredVersion, contract: Contract) -> onnx.ModelProto:
    """Compile a registered version to ONNX."""
    compiled = convert_model(version.model, contract.numeric, contract.categorical)
    then, now = version.tags.get("model_digest", "none"), model_digest(compiled)
    if then != now:
        logger.warning("It compiles to another file than at its training (%s…, then %s…)", now[:12], then[:12])
    return compiled


def check_equivalence(
    version: RegisteredVersion,
    compiled: onnx.ModelProto,
    features: pd.DataFrame,
    contract: Contract,
    settings: PackagingSettings,
    seed: int,
) -> dict[str, Any]:
    """Prove that the ONNX model answers what the trained one answers, on the hold-out and on rows made to be hard.

    Parameters
    ----------
    features
        The held-out customers as the model takes them.

    Returns
    -------
    dict
        ``model_digest``, ``tolerance``, ``threshold``, and for each set of rows how many there were, their largest
        difference in churn probability, and how many decisions differ.

    Raises
    ------
    TableError
        When the hold-out has not the contract's columns.
    EquivalenceError
        When a row differs by more than the tolerance, or is decided otherwise away from the threshold.
    """
    columns, threshold = (contract.numeric, contract.categorical), version.metrics[THRESHOLD]
    if lacking := set(contract.features) - set(features):
        raise TableError(f"The hold-out of table '{contract.name}'", f"lacks {', '.join(sorted(lacking))}: train again")
    made_up = hard_rows(features, version.model, *columns, np.random.default_rng(seed), limit=settings.hard_rows)
    session = open_session(compiled.SerializeToString(deterministic=True))
    problems, report = [], {}
    for name, rows in (("held-out customers", features), ("hard rows", made_up)):
        trained = version.model.predict_proba(rows)[:, 1]
        alone = some_rows(len(rows))
        asked = {
            name: (rows, trained, ask(session, rows, *columns)),
            f"{name}, one at a time": (
                rows.iloc[alone],
                trained[alone],
                ask_alone(session, rows.iloc[alone], *columns),
            ),
        }
        for how, (given, by_trained, by_onnx) in asked.items():
            answers = Answers(by_trained, by_onnx, threshold, settings.tolerance)
            report[how] = answers.report()
            if len(answers.broken):
                problems.append(
                    describe_customers(how, answers)
                    if rows is features
                    else describe_made_up(how, answers, given, features)
                )
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise EquivalenceError(
            f"The ONNX model is not the trained one: churn probabilities differ by more than {settings.tolerance:g}, "
            f"or decisions do. Nothing was packaged.\n{listed}"
        )
    largest = max(found["largest_difference"] for found in report.values())
    logger.info("Proven equal on %s rows: largest difference %.1e", f"{len(features) + len(made_up):,}", largest)
    return {
        "model_digest": model_digest(compiled),
        "tolerance": settings.tolerance,
        "threshold": threshold,
        "rows": report,
    }


def gather(
    version: RegisteredVersion,
    compiled: onnx.ModelProto,
    contract: Contract,
    equivalence_report: dict[str, Any],
    lock: str,
) -> BentoContent:
    """Gather what is shipped: model, contract, training profile, card, proof, bill of materials, and the manifest of all.

    CostModel stay at home: what they decide is in the threshold.

    Parameters
    ----------
    proof
        Of this very model, as `check_equivalence` gives it.
    lock
        The packages of the image.
    """
    digest, tags = model_digest(compiled), version.tags
    if equivalence_report["model_digest"] != digest:
        raise EquivalenceError("The proof is of another model: run packaging as a whole.")
    shipped = contract.model_copy(update={"costs": None})
    files = {
        CONTRACT_FILE: shipped.model_dump_json(exclude_defaults=True, indent=1),
        TRAINING_PROFILE_FILE: TrainingProfile.model_validate_json(
            version.documents[TRAINING_PROFILE_FILE]
        ).model_dump_json(),
        CARD_FILE: version.documents[CARD_FILE],
        EQUIVALENCE_FILE: json.dumps(equivalence_report, indent=1),
        SBOM_FILE: bill_of_materials(lock, version.name, version.version, digest, version.created),
    }
    content = {name: text.encode() for name, text in files.items()}
    manifest = Manifest(
        table=contract.name,
        model_name=version.name,
        model_version=version.version,
        run_id=version.run_id,
        commit=tags.get("git.commit", "unknown") + ("-dirty" if tags.get("git.dirty") == "true" else ""),
        created=version.created,
        candidate=tags.get("candidate", "unknown"),
        model_digest=digest,
        contract_digest=contract.digest(),
        threshold=version.metrics[THRESHOLD],
        metrics=_holdout_metrics(version.metrics),
        files={name: hashlib.sha256(held).hexdigest() for name, held in content.items()},
    )
    content[MODEL_FILE] = compiled.SerializeToString(deterministic=True)
    content[MANIFEST_FILE] = manifest.model_dump_json(indent=1).encode()
    said = ("table", "model_name", "model_version", "run_id", "commit", "candidate", "model_digest", "threshold")
    return BentoContent(
        files={LOCK_FILE: lock.encode(), **{f"{FOLDER}/{name}": held for name, held in content.items()}},
        labels={name: str(getattr(manifest, name)) for name in said},
        description=f"{FOLDER}/{CARD_FILE}",
    )


def _holdout_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    held = {name: value for name, value in sorted(metrics.items()) if name.startswith(HOLDOUT) and name != THRESHOLD}
    return {name.removeprefix(HOLDOUT): value for name, value in held.items()}
