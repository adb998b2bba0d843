"""The bundle: loaded if everything fits together, refused with a one-line message otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.customers import make_contract
from tests.serving.conftest import DECISION, make_bundle, rewrite_manifest

from churn_pipeline.serving.bundle import Bundle, BundleError, load_bundle


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_valid_bundle_is_loaded(bundle: Bundle) -> None:
    assert bundle.contract == make_contract()
    assert bundle.numeric == bundle.contract.numeric
    assert bundle.categorical == bundle.contract.categorical
    assert bundle.decision == DECISION
    assert bundle.manifest.threshold == DECISION.threshold
    assert bundle.training_profile.rows == 300


@pytest.mark.parametrize(
    "name", ["model.onnx", "contract.json", "decision.json", "training_profile.json", "model_card.md", "sbom.cdx.json"]
)
def test_one_changed_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert f"{name} has changed since packaging" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["model.onnx", "contract.json", "decision.json", "training_profile.json", "manifest.json", "model_card.md"]
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name} cannot be read" in refusal(folder)


def rewrite_decision(folder: Path, **changes: Any) -> None:
    decision = json.loads((folder / "decision.json").read_text())
    (folder / "decision.json").write_text(json.dumps({**decision, **changes}))
    rewrite_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mean_value": 1.0}, "decision.json is malformed: the threshold is not the break-even at the mean value"),
        ({"costs": {**DECISION.costs.model_dump(), "fee": 1}}, "decision.json is malformed: costs.fee"),
        (
            {"costs": {**DECISION.costs.model_dump(), "value": {"column": "salary", "months": 7.77}}},
            "decision.json does not fit contract.json: costs.value uses the column 'salary', which is missing",
        ),
        (
            {"costs": {**DECISION.costs.model_dump(), "value": {"column": "region", "months": 7.77}}},
            "decision.json does not fit contract.json: costs.value uses the column 'region', which is the target or not",
        ),
    ],
)
def test_a_decision_that_does_not_fit_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    rewrite_decision(folder, **changes)
    assert said in refusal(folder)


def test_a_threshold_of_another_decision_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, threshold=0.2)
    assert "decision.json and manifest.json have different thresholds. Package the model again" in refusal(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "manifest.json cannot be read" in refusal(tmp_path / "nowhere")


def test_a_file_without_a_digest_is_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["contract.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "contract.json has no digest" in refusal(folder)


def test_nothing_outside_the_folder_is_read(folder: Path) -> None:
    rewrite_manifest(folder, files={"../secret": "0" * 64})
    assert "outside the bundle" in refusal(folder)


def test_another_contract_is_refused_although_its_file_digest_matches(folder: Path) -> None:
    contract = make_contract()
    swapped = contract.model_copy(update={"description": "another one"})
    (folder / "contract.json").write_text(swapped.model_dump_json())
    rewrite_manifest(folder)
    assert "is not the contract of this model" in refusal(folder)


def test_a_contract_with_other_columns_than_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    columns = {name: column for name, column in make_contract().columns.items() if name != "calls"}
    other = make_contract().model_copy(update={"columns": columns})
    made = make_bundle(tmp_path / "other", other.model_validate_json(other.model_dump_json()))
    for name in ("contract.json", "training_profile.json"):
        shutil.copy(made / name, folder / name)
    rewrite_manifest(folder, contract_digest=other.digest())
    assert (
        refusal(folder)
        == "model.onnx and contract.json have different numeric columns (calls). Package the model again"
    )


def test_a_file_that_is_not_a_model_is_refused_although_its_digest_matches(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")
    rewrite_manifest(folder, model_digest="e24e70c6174a4e1e9ec8ecee4f86b0ed1e4eda8b3bb28c8e5a6f0f5a8b8fd4f4")
    assert "model.onnx has changed since packaging" in refusal(folder)
    rewrite_manifest(folder, model_digest=sha256(folder / "model.onnx"))
    assert "model.onnx cannot be loaded" in refusal(folder)


def test_a_model_without_column_names_is_refused(folder: Path) -> None:
    model = onnx.load(str(folder / "model.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(folder / "model.onnx"))
    rewrite_manifest(folder, model_digest=sha256(folder / "model.onnx"))
    assert "has no column names in its metadata" in refusal(folder)


def test_a_model_with_other_inputs_than_its_columns_is_refused(folder: Path) -> None:
    model = onnx.load(str(folder / "model.onnx"))
    columns = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    onnx.helper.set_model_props(
        model, {"numeric": json.dumps(columns["numeric"][1:]), "categorical": json.dumps(columns["categorical"])}
    )
    onnx.save(model, str(folder / "model.onnx"))
    rewrite_manifest(folder, model_digest=sha256(folder / "model.onnx"))
    assert "the inputs do not match the column names" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", "[]"),
        ("manifest.json", '{"table": 1'),
        ("contract.json", "{}"),
        ("training_profile.json", '{"rows": 0, "numeric": {}, "categorical": {}, "probability": {"quantiles": []}}'),
    ],
)
def test_a_malformed_file_is_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    if name != "manifest.json":
        rewrite_manifest(folder)
    assert f"{name} is malformed" in refusal(folder)


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
