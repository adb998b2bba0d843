"""The bundle: the folder with the served model. It is read once at start, and only if every digest matches.

`pipelines.packaging` writes these files. The service reads them and nothing else.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import DecisionRule
from churn_pipeline.documents import DECISION_FILE, MODEL_FILE, TRAINING_PROFILE_FILE

FOLDER = "bundle"
CONTRACT_FILE = "contract.json"
MANIFEST_FILE = "manifest.json"
SBOM_FILE = "sbom.cdx.json"
SAMPLE_FILE = "sample.json"

NUMERIC, CATEGORICAL, OUTPUT = "numeric", "categorical", "churn_probability"
QUANTILES = 101

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Columns = TypeAdapter(tuple[str, ...])
Part = TypeVar("Part", bound=BaseModel)


class BundleError(ValueError):
    """A bundle that cannot be served. The message is one line and can be shown unchanged."""


class _BundlePart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Manifest(_BundlePart):
    """Origin of a model, and the files that belong to it.

    Attributes
    ----------
    table
        Name of the customer table.
    model_name, model_version
        Name and version in the model registry.
    run_id, commit
        MLflow run that trained the model, and its commit.
    created
        Registration time of the model version; a build time would give the same model different bytes.
    candidate
        Name of the chosen candidate.
    model_digest
        SHA-256 of ``model.onnx``.
    contract_digest
        `Contract.digest` of the contract used in training.
    threshold
        Break-even churn probability at the mean customer value. It decides about customers whose value is unknown.
    metrics
        Hold-out metrics by name.
    files
        SHA-256 of every other file in the folder, by name.
    """

    table: str
    model_name: str
    model_version: str
    run_id: str
    commit: str
    created: datetime
    candidate: str
    model_digest: Sha256
    contract_digest: Sha256
    threshold: Finite
    metrics: dict[str, Finite]
    files: dict[str, Sha256]


class NumericProfile(_BundlePart):
    """One numeric feature of the training customers.

    Attributes
    ----------
    quantiles
        101 quantiles of the known values, from minimum to maximum in steps of one percent; empty if no value is known.
    missing
        Share of missing values.
    """

    quantiles: tuple[Finite, ...]
    missing: Share

    @model_validator(mode="after")
    def _rising(self) -> "NumericProfile":
        if len(self.quantiles) not in (0, QUANTILES) or list(self.quantiles) != sorted(self.quantiles):
            raise ValueError(f"expected {QUANTILES} quantiles in ascending order, or none if no value is known")
        return self


class CategoricalProfile(_BundlePart):
    """One categorical feature of the training customers.

    Attributes
    ----------
    levels
        Share of each level; ``''`` stands for missing. The sum may be below one because rare levels are left out.
    """

    levels: dict[str, Share]


class ProbabilityProfile(_BundlePart):
    """The model's churn probabilities on the training customers, as quantiles in steps of one percent."""

    quantiles: Annotated[tuple[Share, ...], Field(min_length=QUANTILES, max_length=QUANTILES)]


class TrainingProfile(_BundlePart):
    """Summary of the training customers without any row; the baseline of drift and explanations."""

    rows: Annotated[int, Field(gt=0)]
    numeric: dict[str, NumericProfile]
    categorical: dict[str, CategoricalProfile]
    probability: ProbabilityProfile


@dataclass(frozen=True)
class Bundle:
    """A bundle that has been read and checked.

    Attributes
    ----------
    manifest, contract, decision, training_profile
        Parsed files of the bundle.
    session
        The loaded model; `onnxruntime.InferenceSession`.
    numeric, categorical
        The model's columns, in the order of its inputs.
    folder
        Folder of the bundle.
    sample
        Content of the sample, see `churn_pipeline.serving.sample`; None in bundles that were packaged without one.
    """

    manifest: Manifest
    contract: Contract
    decision: DecisionRule
    training_profile: TrainingProfile
    session: onnxruntime.InferenceSession
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    folder: Path
    sample: bytes | None = None

    @property
    def request_columns(self) -> tuple[str, ...]:
        """Columns that a request should have: the id, the features, and the column of the customer's value."""
        names = (self.contract.roles.id, *self.contract.features, self.decision.column)
        return tuple(dict.fromkeys(name for name in names if name is not None))


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle, and check every digest and that model, contract and training profile fit together.

    Raises
    ------
    BundleError
        If a file is missing, changed or malformed, or the parts do not fit together.
    """
    folder = Path(folder)
    manifest = _parse(Manifest, _read(folder, MANIFEST_FILE), MANIFEST_FILE)
    contents = {
        name: _read(folder, name)
        for name in {MODEL_FILE, CONTRACT_FILE, DECISION_FILE, TRAINING_PROFILE_FILE, *manifest.files}
    }
    expected = {**manifest.files, MODEL_FILE: manifest.model_digest}
    for name, content in sorted(contents.items()):
        if name not in expected:
            raise BundleError(f"{name} has no digest in {MANIFEST_FILE}: package the model again")
        found = hashlib.sha256(content).hexdigest()
        if found != expected[name]:
            raise BundleError(
                f"{name} has changed since packaging: its SHA-256 is {found[:12]}…, {MANIFEST_FILE} "
                f"has {expected[name][:12]}…. Package the model again"
            )
    contract = _parse(Contract, contents[CONTRACT_FILE], CONTRACT_FILE)
    if contract.digest() != manifest.contract_digest:
        raise BundleError(
            f"{CONTRACT_FILE} is not the contract of this model: its digest is {contract.digest()[:12]}…, "
            f"{MANIFEST_FILE} has {manifest.contract_digest[:12]}…. Package the model again"
        )
    decision = _parse(DecisionRule, contents[DECISION_FILE], DECISION_FILE)
    _check_decision(decision, manifest, contract)
    training_profile = _parse(TrainingProfile, contents[TRAINING_PROFILE_FILE], TRAINING_PROFILE_FILE)
    _check_columns(
        TRAINING_PROFILE_FILE, tuple(training_profile.numeric), tuple(training_profile.categorical), contract
    )
    session = open_session(contents[MODEL_FILE])
    numeric, categorical = _model_columns(session)
    _check_columns(MODEL_FILE, numeric, categorical, contract)
    sample = contents.get(SAMPLE_FILE)
    return Bundle(manifest, contract, decision, training_profile, session, numeric, categorical, folder, sample)


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load an ONNX model for low latency: each run uses only the calling thread.

    Raises
    ------
    BundleError
        If onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors, which are raised as well
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise BundleError(f"{MODEL_FILE} cannot be loaded: {' '.join(str(error).split())}") from None


def _model_columns(session: onnxruntime.InferenceSession) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns in an ONNX model's metadata, checked against its inputs and output."""
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        numeric, categorical = (Columns.validate_json(metadata[kind]) for kind in (NUMERIC, CATEGORICAL))
    except (KeyError, ValidationError):
        raise BundleError(f"{MODEL_FILE} has no column names in its metadata. Package the model again") from None
    inputs = {node.name: (node.type, node.shape[-1]) for node in session.get_inputs()}
    kinds = {NUMERIC: ("tensor(float)", len(numeric)), CATEGORICAL: ("tensor(string)", len(categorical))}
    if inputs != {name: kind for name, kind in kinds.items() if kind[1]}:
        raise BundleError(
            f"{MODEL_FILE}: the inputs do not match the column names in its metadata. Package the model again"
        )
    if [(node.name, node.type) for node in session.get_outputs()] != [(OUTPUT, "tensor(double)")]:
        raise BundleError(f"{MODEL_FILE}: the output is not {OUTPUT} in double precision. Package the model again")
    return numeric, categorical


def _check_decision(decision: DecisionRule, manifest: Manifest, contract: Contract) -> None:
    if decision.threshold != manifest.threshold:
        raise BundleError(f"{DECISION_FILE} and {MANIFEST_FILE} have different thresholds. Package the model again")
    for problem in contract.value_problems(decision.column):
        raise BundleError(f"{DECISION_FILE} does not fit {CONTRACT_FILE}: {problem}. Train again")


def _check_columns(file: str, numeric: tuple[str, ...], categorical: tuple[str, ...], contract: Contract) -> None:
    for kind, found, expected in (
        (NUMERIC, numeric, contract.numeric),
        (CATEGORICAL, categorical, contract.categorical),
    ):
        if set(found) != set(expected):
            differing = ", ".join(sorted(set(found) ^ set(expected)))
            raise BundleError(
                f"{file} and {CONTRACT_FILE} have different {kind} columns ({differing}). Package the model again"
            )


def _read(folder: Path, name: str) -> bytes:
    if Path(name).name != name:
        raise BundleError(f"{MANIFEST_FILE} names a file outside the bundle")
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name} cannot be read from {folder}: {error.strerror}") from None


def _parse(kind: type[Part], content: bytes, name: str) -> Part:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise BundleError(f"{name} is malformed: {where + ': ' if where else ''}{problem}") from None
