"""A small bundle with a model fitted on invented customers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from tests.customers import make_contract, raw_customers

from churn_pipeline.contract.cells import churned, model_inputs
from churn_pipeline.contract.table import Contract
from churn_pipeline.contract.validation import validate_table
from churn_pipeline.costs import CostModel, DecisionRule, ValueColumn
from churn_pipeline.modelling.candidates import Candidate, build_candidate
from churn_pipeline.modelling.onnx_conversion import convert_model, model_digest
from churn_pipeline.serving.bundle import FOLDER, Bundle, TrainingProfile, load_bundle, open_session
from churn_pipeline.serving.sample import make_sample

LOGISTIC: dict[str, Any] = {
    "class": "sklearn.linear_model.LogisticRegression",
    "arguments": {"max_iter": 500},
    "numeric": "scaled",
}
# Unusual numbers: a test searches every answer for them
BY_VALUE = CostModel(
    value=ValueColumn(column="charge", months=7.77), offer_cost=31.337, contact_cost=523.71, acceptance=0.4321
)
ONE_VALUE = DecisionRule.of(CostModel(value=100, offer_cost=0, contact_cost=15, acceptance=0.5), np.array([100.0]))
DECISION = DecisionRule.of(BY_VALUE, np.array([4240.5934]))
THRESHOLD = DECISION.threshold


def customers_of(contract: Contract, rows: int = 300) -> pd.DataFrame:
    """Valid customers under the contract of `tests.customers`; their churn depends on months and region."""
    raw = raw_customers(rows, dated=contract.roles.date is not None)
    chance = np.where(raw["months"].astype(int) < 200, 0.6, 0.15) + np.where(raw["region"] == "north", 0.2, 0.0)
    raw["churn"] = np.where(np.random.default_rng(1).random(rows) < chance, "Yes", "No")
    return validate_table(raw[list(contract.columns)], contract).customers


def decision_of(contract: Contract) -> DecisionRule:
    """A decision by the customer's charge if the contract has it."""
    return DECISION if "charge" in contract.columns else ONE_VALUE


def make_bundle(
    folder: Path,
    contract: Contract | None = None,
    customers: pd.DataFrame | None = None,
    decision: DecisionRule | None = None,
) -> Path:
    """Fit a model, convert it and write a bundle to `folder`; `rewrite_manifest` can change the manifest."""
    contract = contract or make_contract()
    decision = decision or decision_of(contract)
    customers = customers_of(contract) if customers is None else customers
    X = model_inputs(customers, contract)
    model = build_candidate(Candidate.model_validate(LOGISTIC), contract.numeric, contract.categorical, seed=1)
    model.fit(X, churned(customers, contract))
    onnx_model = convert_model(model, contract.numeric, contract.categorical)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(onnx_model.SerializeToString(deterministic=True))
    (folder / "contract.json").write_text(contract.model_dump_json())
    training_profile = training_profile_of(X, contract, model.predict_proba(X)[:, 1])
    (folder / "training_profile.json").write_text(json.dumps(training_profile))
    sample = make_sample(
        contract,
        TrainingProfile.model_validate(training_profile),
        open_session((folder / "model.onnx").read_bytes()),
        contract.numeric,
        contract.categorical,
    )
    (folder / "sample.json").write_text(sample.model_dump_json())
    (folder / "decision.json").write_text(decision.model_dump_json())
    (folder / "model_card.md").write_text("# Model card\n")
    (folder / "sbom.cdx.json").write_text("{}\n")
    manifest = {
        "table": contract.name,
        "model_name": f"churn_{contract.name}",
        "model_version": "1",
        "run_id": "0" * 32,
        "commit": "0" * 40,
        "created": "2026-01-31T00:00:00Z",
        "candidate": "logistic_regression",
        "model_digest": model_digest(onnx_model),
        "contract_digest": contract.digest(),
        "threshold": decision.threshold,
        "metrics": {"auc": 0.75, "log_loss": 0.5},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rewrite_manifest(folder)
    return folder


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Write the manifest again, with changes and the current digests of the files."""
    manifest = json.loads((folder / "manifest.json").read_text())
    others = [path for path in folder.iterdir() if path.name not in ("manifest.json", "model.onnx")]
    manifest["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in others}
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def training_profile_of(X: pd.DataFrame, contract: Contract, probabilities: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The training profile of the bundle."""
    steps = np.linspace(0, 1, 101)

    def numeric(values: pd.Series) -> dict[str, Any]:
        known = values.dropna()
        quantiles = np.quantile(known, steps).tolist() if len(known) else []
        return {"quantiles": quantiles, "missing": float(values.isna().mean())}

    return {
        "rows": len(X),
        "numeric": {name: numeric(X[name]) for name in contract.numeric},
        "categorical": {
            name: {"levels": X[name].value_counts(normalize=True).to_dict()} for name in contract.categorical
        },
        "probability": {"quantiles": np.quantile(probabilities, steps).tolist()},
    }


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a valid bundle; tests must not change it."""
    return make_bundle(tmp_path_factory.mktemp("bento") / FOLDER)


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    """A valid bundle."""
    return load_bundle(bundle_folder)
