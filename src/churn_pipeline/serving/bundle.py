"""What a service is given to serve: one folder, read once at start and believed only where every digest agrees.

Whoever packages a model writes these files; whoever serves it reads them, and nothing else.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from churn_pipeline.contract.table import Contract
from churn_pipeline.documents import TRAINING_PROFILE_FILE

FOLDER = "bundle"
MODEL_FILE = "model.onnx"
CONTRACT_FILE = "contract.json"
MANIFEST_FILE = "manifest.json"
SBOM_FILE = "sbom.cdx.json"

NUMERIC, CATEGORICAL, OUTPUT = "numeric", "categorical", "churn_probability"
QUANTILES = 101

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Columns = TypeAdapter(tuple[str, ...])
Shipped = TypeVar("Shipped", bound=BaseModel)


class BundleError(ValueError):
    """A bundle that is not served; the message is one line, meant to be shown to a person as it is."""


class _Shipped(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Manifest(_Shipped):
    """Where a model comes from and what belongs to it.

    Attributes
    ----------
    table
        The table's name.
    model_name, model_version
        As registered.
    run_id, commit
        The MLflow run that trained the model, and the commit that it ran from.
    created
        When the model's version was registered, so that the same model is shipped with the same bytes.
    candidate
        The chosen candidate's name.
    model_digest
        SHA-256 of ``model.onnx``.
    contract_digest
        `Contract.digest` of the contract that the model was trained under.
    threshold
        A customer is contacted from this churn probability on.
    metrics
        What the training measured on the hold-out.
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


class NumericProfile(_Shipped):
    """One numeric feature of the training customers.

    Attributes
    ----------
    quantiles
        From the least to the largest known value in steps of one percent; empty where none is known.
    missing
        Share of missing values.
    """

    quantiles: tuple[Finite, ...]
    missing: Share

    @model_validator(mode="after")
    def _rising(self) -> "NumericProfile":
        if len(self.quantiles) not in (0, QUANTILES) or list(self.quantiles) != sorted(self.quantiles):
            raise ValueError(f"there must be {QUANTILES} rising quantiles, or none where no value is known")
        return self


class CategoricalProfile(_Shipped):
    """One categorical feature of the training customers.

    Attributes
    ----------
    levels
        Share of each level, ``''`` for missing. They may sum to less than one: levels too rare to be told are left out.
    """

    levels: dict[str, Share]


class ProbabilityProfile(_Shipped):
    """The model's churn probabilities on the training customers, as quantiles in steps of one percent."""

    quantiles: Annotated[tuple[Share, ...], Field(min_length=QUANTILES, max_length=QUANTILES)]


class TrainingProfile(_Shipped):
    """Summary of the training customers, with no customer's row: what drift and explanations are measured against."""

    rows: Annotated[int, Field(gt=0)]
    numeric: dict[str, NumericProfile]
    categorical: dict[str, CategoricalProfile]
    probability: ProbabilityProfile


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked.

    Attributes
    ----------
    manifest, contract, training_profile
        What was shipped with the model.
    session
        The loaded model; `onnxruntime.InferenceSession`.
    numeric, categorical
        The model's columns, in the order in which either input takes them.
    folder
        Where it was read from.
    """

    manifest: Manifest
    contract: Contract
    training_profile: TrainingProfile
    session: onnxruntime.InferenceSession
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    folder: Path


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle, check every digest, and check that model, contract and training profile belong together.

    Raises
    ------
    BundleError
        When a file is missing, changed or not of its form, or the parts do not fit each other.
    """
    folder = Path(folder)
    manifest = _parse(Manifest, _read(folder, MANIFEST_FILE), MANIFEST_FILE)
    contents = {
        name: _read(folder, name) for name in {MODEL_FILE, CONTRACT_FILE, TRAINING_PROFILE_FILE, *manifest.files}
    }
    expected = {**manifest.files, MODEL_FILE: manifest.model_digest}
    for name, content in sorted(contents.items()):
        if name not in expected:
            raise BundleError(f"{name} has no digest in {MANIFEST_FILE}: package the model again")
        found = hashlib.sha256(content).hexdigest()
        if found != expected[name]:
            raise BundleError(
                f"{name} is not what was packaged: its SHA-256 is {found[:12]}…, and {MANIFEST_FILE} "
                f"says {expected[name][:12]}…. Package the model again"
            )
    contract = _parse(Contract, contents[CONTRACT_FILE], CONTRACT_FILE)
    if contract.digest() != manifest.contract_digest:
        raise BundleError(
            f"{CONTRACT_FILE} is not the contract of this model: its digest is {contract.digest()[:12]}…, and "
            f"{MANIFEST_FILE} says {manifest.contract_digest[:12]}…. Package the model again"
        )
    training_profile = _parse(TrainingProfile, contents[TRAINING_PROFILE_FILE], TRAINING_PROFILE_FILE)
    _check_columns(
        "the training profile are", tuple(training_profile.numeric), tuple(training_profile.categorical), contract
    )
    session = open_session(contents[MODEL_FILE])
    numeric, categorical = _model_columns(session)
    _check_columns("the model is", numeric, categorical, contract)
    return Bundle(manifest, contract, training_profile, session, numeric, categorical, folder)


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Load an ONNX model for answers with the least delay: each run on the calling thread alone.

    Raises
    ------
    BundleError
        When it is no model that onnxruntime can run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors: they are raised as well
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise BundleError(f"{MODEL_FILE} does not load: {' '.join(str(error).split())}") from None


def _model_columns(session: onnxruntime.InferenceSession) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that an ONNX model says it takes, once its inputs and output agree with that."""
    said = session.get_modelmeta().custom_metadata_map
    try:
        numeric, categorical = (Columns.validate_json(said[kind]) for kind in (NUMERIC, CATEGORICAL))
    except (KeyError, ValidationError):
        raise BundleError(f"{MODEL_FILE} does not say which columns it takes: package the model again") from None
    taken = {given.name: (given.type, given.shape[-1]) for given in session.get_inputs()}
    kinds = {NUMERIC: ("tensor(float)", len(numeric)), CATEGORICAL: ("tensor(string)", len(categorical))}
    if taken != {name: kind for name, kind in kinds.items() if kind[1]}:
        raise BundleError(f"{MODEL_FILE} takes other inputs than its columns: package the model again")
    if [(given.name, given.type) for given in session.get_outputs()] != [(OUTPUT, "tensor(double)")]:
        raise BundleError(f"{MODEL_FILE} does not answer {OUTPUT} in double: package the model again")
    return numeric, categorical


def _check_columns(what: str, numeric: tuple[str, ...], categorical: tuple[str, ...], contract: Contract) -> None:
    for kind, found, wanted in (
        (NUMERIC, numeric, contract.numeric),
        (CATEGORICAL, categorical, contract.categorical),
    ):
        if set(found) != set(wanted):
            apart = ", ".join(sorted(set(found) ^ set(wanted)))
            raise BundleError(
                f"{CONTRACT_FILE} does not fit: {what} of other {kind} columns ({apart}): package the model again"
            )


def _read(folder: Path, name: str) -> bytes:
    if Path(name).name != name:
        raise BundleError(f"{MANIFEST_FILE} names a file outside the bundle")
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{name} cannot be read from {folder}: {error.strerror}") from None


def _parse(kind: type[Shipped], content: bytes, name: str) -> Shipped:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{name} is not of its form: {where + ': ' if where else ''}{first['msg']}") from None
