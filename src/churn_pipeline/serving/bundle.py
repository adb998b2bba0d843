"""The bundle: the folder with the served model. It is read once at start, and only if every digest matches.

`pipelines.packaging` writes these files. The service reads them and nothing else.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
from pydantic import TypeAdapter, ValidationError

from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import DecisionRule
from churn_pipeline.documents import BUNDLE_FOLDER as FOLDER
from churn_pipeline.documents import DECISION_FILE, MODEL_FILE, TRAINING_PROFILE_FILE
from churn_pipeline.serving.bundle_files import BundleError, parse, read_file, read_folder
from churn_pipeline.serving.bundle_parts import (
    CategoricalProfile,
    Manifest,
    NumericProfile,
    ProbabilityProfile,
    TrainingProfile,
)

__all__ = [
    "CATEGORICAL",
    "CONTRACT_FILE",
    "FOLDER",
    "MANIFEST_FILE",
    "NUMERIC",
    "OUTPUT",
    "SAMPLE_FILE",
    "SBOM_FILE",
    "Bundle",
    "BundleError",
    "CategoricalProfile",
    "Manifest",
    "NumericProfile",
    "ProbabilityProfile",
    "TrainingProfile",
    "load_bundle",
    "open_session",
]

CONTRACT_FILE = "contract.json"
MANIFEST_FILE = "manifest.json"
SBOM_FILE = "sbom.cdx.json"
SAMPLE_FILE = "sample.json"
NUMERIC, CATEGORICAL, OUTPUT = "numeric", "categorical", "churn_probability"
Columns = TypeAdapter(tuple[str, ...])


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


def load_bundle(folder: str | Path, signature_key: Path | None = None) -> Bundle:
    """Read a bundle, and check its signature, every digest, and that model, contract and training profile fit together.

    Parameters
    ----------
    folder
        Folder of the bundle.
    signature_key
        File of a public key in PEM format. With it, the holder of its private key must have signed the bundle, and nothing is
        parsed before the signature was verified.

    Raises
    ------
    BundleError
        If a file is missing, changed or malformed, the parts do not fit together, or a required signature is not valid.
    """
    folder = Path(folder)
    signed = None if signature_key is None else _signed_files(folder, signature_key)
    manifest = parse(Manifest, read_file(folder, MANIFEST_FILE, signed), MANIFEST_FILE)
    contents = {
        name: read_file(folder, name, signed)
        for name in {MODEL_FILE, CONTRACT_FILE, DECISION_FILE, TRAINING_PROFILE_FILE, *manifest.files}
    }
    _check_digests(contents, manifest)
    contract = parse(Contract, contents[CONTRACT_FILE], CONTRACT_FILE)
    if contract.digest() != manifest.contract_digest:
        raise BundleError(
            f"{CONTRACT_FILE} is not the contract of this model: its digest is {contract.digest()[:12]}…, "
            f"{MANIFEST_FILE} has {manifest.contract_digest[:12]}…. Package the model again"
        )
    decision = parse(DecisionRule, contents[DECISION_FILE], DECISION_FILE)
    _check_decision(decision, manifest, contract)
    training_profile = parse(TrainingProfile, contents[TRAINING_PROFILE_FILE], TRAINING_PROFILE_FILE)
    _check_columns(
        TRAINING_PROFILE_FILE, tuple(training_profile.numeric), tuple(training_profile.categorical), contract
    )
    session = open_session(contents[MODEL_FILE])
    numeric, categorical = _model_columns(session)
    _check_columns(MODEL_FILE, numeric, categorical, contract)
    sample = contents.get(SAMPLE_FILE)
    return Bundle(manifest, contract, decision, training_profile, session, numeric, categorical, folder, sample)


def _signed_files(folder: Path, signature_key: Path) -> dict[str, bytes]:
    # cryptography takes 8 MB of memory in each worker, so it is imported only if signatures are required.
    from churn_pipeline.serving.signature import verify_signature

    files = read_folder(folder)
    verify_signature(files, signature_key)
    return files


def _check_digests(contents: dict[str, bytes], manifest: Manifest) -> None:
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
