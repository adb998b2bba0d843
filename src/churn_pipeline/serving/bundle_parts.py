"""The files of a bundle, as types: where the model comes from, and what its training customers were like."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

QUANTILES = 101

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


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
