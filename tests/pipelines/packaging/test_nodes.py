"""Nodes of packaging: which versions are refused, the equivalence check, and the content of a Bento."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.pipelines.packaging.conftest import BOOSTING, Registered, register

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.contract.table import Contract
from churn_pipeline.costs import DecisionRule
from churn_pipeline.datasets.bento_dataset import BentoContent
from churn_pipeline.modelling.onnx_conversion import model_digest
from churn_pipeline.modelling.preprocessing import round_to_float32
from churn_pipeline.pipelines.packaging.equivalence import Comparison, EquivalenceError
from churn_pipeline.pipelines.packaging.nodes import (
    PackagingSettings,
    accept_version,
    check_equivalence,
    collect_content,
    load_onnx_model,
)
from churn_pipeline.serving.bundle import load_bundle
from churn_pipeline.serving.sample import Sample

SETTINGS = PackagingSettings(hard_rows=3_000)
LOCK = "numpy==2.4.6 \\\n    --hash=sha256:" + "a" * 64 + "\n    # via bentoml\n"


def checked(given: Registered, onnx_model: onnx.ModelProto | None = None) -> dict[str, object]:
    model = load_onnx_model(given.version, given.contract) if onnx_model is None else onnx_model
    return check_equivalence(given.version, model, sample_of(given), given.contract, SETTINGS, seed=0)


def sample_of(given: Registered) -> pd.DataFrame:
    """All held-out customers, in the order of the hold-out, with the column of their values."""
    value = {} if "charge" in given.features else {"charge": given.customers["charge"]}
    return given.features.assign(**value)


def collected(given: Registered) -> BentoContent:
    onnx_model = load_onnx_model(given.version, given.contract)
    return collect_content(given.version, onnx_model, given.contract, checked(given), LOCK)


def shifted(onnx_model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """The same model with a constant added to every probability."""
    changed = onnx.ModelProto()
    changed.CopyFrom(onnx_model)
    [output] = changed.graph.output
    changed.graph.node[-1].output[0] = "before"
    changed.graph.initializer.append(helper.make_tensor("shift", TensorProto.DOUBLE, [1], [by]))
    changed.graph.node.append(helper.make_node("Add", ["before", "shift"], [output.name]))
    return changed


# ---- accepted versions -----------------------------------------------------------------------------------------------


def test_a_version_of_this_contract_is_accepted(registered: Registered) -> None:
    version, tags = accept_version(registered.version, registered.contract)
    assert version == registered.version
    assert tags == {"model": "churn_customers", "version": "3"}


def test_a_model_of_another_contract_is_refused(registered: Registered) -> None:
    columns = {**registered.contract.columns, "age": registered.contract.columns["months"]}
    other = registered.contract.model_copy(update={"columns": columns})
    with pytest.raises(ProjectError, match=r"Version 3 .*\n.*another contract of table 'customers'.*Train again"):
        accept_version(registered.version, other)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"documents": {}}, r"model_card\.md and decision\.json and training_profile\.json"),
        ({"documents": {"model_card.md": "", "training_profile.json": ""}}, r"decision\.json"),
    ],
)
def test_an_incomplete_version_is_refused(lost: dict[str, object], said: str, registered: Registered) -> None:
    with pytest.raises(ProjectError, match=f"registered without {said}: train again"):
        accept_version(replace(registered.version, **lost), registered.contract)


def test_a_decision_by_another_formula_is_refused(registered: Registered) -> None:
    decision = json.loads(registered.version.documents["decision.json"])
    documents = {**registered.version.documents, "decision.json": json.dumps({**decision, "threshold": 0.3})}
    with pytest.raises(ProjectError, match=r"its decision\.json does not fit this version of the code: train again"):
        accept_version(replace(registered.version, documents=documents), registered.contract)


def test_a_version_registered_under_the_former_name_of_the_profile_is_accepted(registered: Registered) -> None:
    documents = dict(registered.version.documents)
    documents["reference.json"] = documents.pop("training_profile.json")
    version, _ = accept_version(replace(registered.version, documents=documents), registered.contract)
    assert version.documents == registered.version.documents


def test_the_onnx_model_of_the_training_is_packaged(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_onnx_model(registered.version, registered.contract)
    content = trained.SerializeToString(deterministic=True)
    version = replace(registered.version, files={"model.onnx": content})
    monkeypatch.setattr("churn_pipeline.pipelines.packaging.nodes.convert_model", None)  # it is not converted again
    loaded = load_onnx_model(version, registered.contract)
    assert loaded.SerializeToString(deterministic=True) == content
    assert model_digest(loaded) == version.tags["model_digest"]


def test_a_changed_onnx_file_is_refused(registered: Registered) -> None:
    version = replace(registered.version, files={"model.onnx": b"another file"})
    with pytest.raises(
        ProjectError, match=r"Version 3 .* cannot be packaged:\n.*model\.onnx .* differs .*: train again"
    ):
        load_onnx_model(version, registered.contract)


def test_a_version_without_an_onnx_file_is_converted_with_a_warning_if_the_code_has_changed(
    registered: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_onnx_model(registered.version, registered.contract)
        assert not caplog.records
        tags = {**registered.version.tags, "model_digest": "0" * 64}
        load_onnx_model(replace(registered.version, tags=tags), registered.contract)
    assert "differs from the training's 000000000000…: the code or a library has changed" in caplog.text


# ---- the equivalence check -------------------------------------------------------------------------------------------


def test_the_real_model_passes_and_the_report_counts_the_rows(registered: Registered) -> None:
    report = checked(registered)
    rows = report["rows"]
    assert isinstance(rows, dict)
    assert [found["rows"] for found in rows.values()] == [200, 200, 3_000, 500]
    assert all(found["largest_difference"] < 1e-12 for found in rows.values())
    assert report["model_digest"] == model_digest(load_onnx_model(registered.version, registered.contract))


def test_a_model_whose_probabilities_are_slightly_higher_fails(registered: Registered) -> None:
    onnx_model = load_onnx_model(registered.version, registered.contract)
    assert checked(registered, shifted(onnx_model, 5e-7))
    with pytest.raises(EquivalenceError) as caught:
        checked(registered, shifted(onnx_model, 2e-6))
    said = str(caught.value)
    assert "Nothing was packaged" in said
    assert "200 of 200 held-out customers: row " in said
    assert "by 2e-06" in said
    assert "3,000 of 3,000 hard rows" in said


def test_scaled_trees_in_float32_fail_on_hard_rows() -> None:
    """The reason for the check: at split values, a plain conversion can be wrong by more than 0.5."""
    given = register({**BOOSTING, "numeric": "scaled"}, ignored=("region", "plan", "lines", "calls"))
    assert not given.contract.categorical

    with pytest.raises(EquivalenceError) as caught:
        checked(given, plainly_converted(given))

    said = str(caught.value)
    assert re.search(r"of 3,000 hard rows: row \d+ by 0\.\d+ \(changed: \w+", said)
    assert checked(given)  # with our own conversion, the same model passes


def plainly_converted(given: Registered) -> onnx.ModelProto:
    """Convert scaler and trees with skl2onnx in float32, with our names of inputs and output."""
    scaler = StandardScaler().fit(round_to_float32(given.train))
    plain = make_pipeline(scaler, given.version.model.named_steps["classifier"])
    inputs = [("numeric", FloatTensorType([None, len(given.contract.numeric)]))]
    converted = to_onnx(plain, initial_types=inputs, options={"zipmap": False})
    graph = converted.graph
    graph.initializer.extend(
        [numpy_helper.from_array(np.array(1), "one"), numpy_helper.from_array(np.array([-1]), "flat")]
    )
    graph.node.extend(
        [
            helper.make_node("Gather", ["probabilities", "one"], ["churn"], axis=1),
            helper.make_node("Cast", ["churn"], ["double"], to=TensorProto.DOUBLE),
            helper.make_node("Reshape", ["double", "flat"], ["churn_probability"]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("churn_probability", TensorProto.DOUBLE, ["rows"]))
    return converted


def test_the_error_shows_made_up_values_but_no_customers_value(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("churn_pipeline.pipelines.packaging.equivalence.SHOWN", 10_000)
    features = registered.features.assign(plan="SECRET")
    features.loc[7, "charge"] = 1000.987654  # the largest: it and its neighbours are among the edges
    given = registered._replace(features=features)
    with pytest.raises(EquivalenceError) as caught:
        checked(given, shifted(load_onnx_model(given.version, given.contract), 0.1))
    said = str(caught.value)
    assert "1000.98765" not in said
    assert "SECRET" not in said
    assert "plan = never seen" in said
    assert "charge = 1e+30" in said


def test_a_decision_may_differ_only_close_to_the_threshold() -> None:
    trained = np.array([0.3 + 5e-7, 0.31, 0.5])
    wide = {"threshold": np.array([0.3, 0.3, 0.9]), "tolerance": 0.5}
    assert Comparison(trained, np.array([0.3 - 1e-3, 0.4, 0.5]), **wide).failing_rows.tolist() == []
    assert Comparison(trained, np.array([0.4, 0.29, 0.5]), **wide).failing_rows.tolist() == [1]
    assert Comparison(trained, np.array([0.4, 0.4, 0.95]), **wide).failing_rows.tolist() == [2]
    report = Comparison(trained, np.array([0.3 - 1e-3, 0.29, 0.5]), **wide).report()
    assert report["decisions_that_differ"] == 2


def test_a_missing_probability_differs() -> None:
    answers = Comparison(np.array([0.5, 0.5]), np.array([np.nan, 0.5]), np.full(2, 0.3), tolerance=1e-6)
    assert answers.failing_rows.tolist() == [0]
    assert answers.report()["largest_difference"] == np.inf


def test_each_customer_is_compared_at_the_threshold_of_its_own_value() -> None:
    given = register(BOOSTING, ignored=("charge",))
    costs = DecisionRule.model_validate_json(given.version.documents["decision.json"]).costs
    raised = shifted(load_onnx_model(given.version, given.contract), 1e-5)
    close = float(given.version.model.predict_proba(given.features)[7, 1]) + 5e-6  # between the two models
    paid = (costs.offer_cost + costs.contact_cost) / close - (1 - costs.acceptance) * costs.offer_cost
    charge = given.customers["charge"].where(given.customers.index != 7, paid / costs.acceptance / 1000)
    given = given._replace(customers=given.customers.assign(charge=charge))
    settings = SETTINGS.model_copy(update={"tolerance": 1e-4})
    with pytest.raises(EquivalenceError, match="1 of 200 held-out customers: row 7 by 1e-05"):
        check_equivalence(given.version, raised, sample_of(given), given.contract, settings, seed=0)


# ---- the content of a Bento ------------------------------------------------------------------------------------------


def test_a_service_reads_the_collected_bundle(registered: Registered, tmp_path: Path) -> None:
    content = collected(registered)
    for name, held in content.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(held)
    bundle = load_bundle(tmp_path / "bundle")
    manifest = bundle.manifest
    assert (manifest.table, manifest.model_name, manifest.model_version) == ("customers", "churn_customers", "3")
    assert (manifest.run_id, manifest.commit, manifest.candidate) == ("5" * 32, "c" * 40, "boosting")
    assert bundle.decision == DecisionRule.model_validate_json(registered.version.documents["decision.json"])
    assert manifest.threshold == bundle.decision.threshold
    assert manifest.metrics == {"auc": 0.75, "profit": 12.5}
    assert set(manifest.files) == {
        "contract.json",
        "decision.json",
        "training_profile.json",
        "model_card.md",
        "sample.json",
        "equivalence_report.json",
        "sbom.cdx.json",
    }
    assert content.labels["model_digest"] == manifest.model_digest
    assert content.labels["threshold"] == str(manifest.threshold)
    assert set(bundle.training_profile.numeric) == set(registered.contract.numeric)
    assert content.files["requirements.txt"] == LOCK.encode()


def test_the_bundle_has_a_sample_of_invented_customers_with_the_trained_models_probabilities(
    registered: Registered,
) -> None:
    sample = Sample.model_validate_json(collected(registered).files["bundle/sample.json"])
    columns = {name: [customer.get(name) for customer in sample.customers] for name in registered.features}
    rows = pd.DataFrame(
        {
            name: np.array(values, dtype=float)
            if name in registered.contract.numeric
            else ["" if value is None else str(value) for value in values]
            for name, values in columns.items()
        }
    )
    probabilities = registered.version.model.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(sample.churn_probabilities, probabilities, atol=1e-6)
    assert len(set(sample.churn_probabilities)) > 1, "rows that are all alike check little"
    assert rows.merge(registered.train).empty, "no row is a customer's"


def test_the_bundle_has_the_contract_without_its_costs(registered: Registered) -> None:
    content = collected(registered)
    bundled = Contract.model_validate_json(content.files["bundle/contract.json"])
    assert bundled == registered.contract.model_copy(update={"costs": None})
    assert [name for name, held in content.files.items() if b"31337" in held.replace(b",", b"")] == [
        "bundle/decision.json"
    ]


def test_the_same_version_gives_the_same_bytes(registered: Registered) -> None:
    assert collected(registered) == collected(registered)


def test_the_manifest_marks_uncommitted_changes(registered: Registered) -> None:
    tags = {**registered.version.tags, "git.dirty": "true"}
    content = collected(registered._replace(version=replace(registered.version, tags=tags)))
    assert json.loads(content.files["bundle/manifest.json"])["commit"] == "c" * 40 + "-dirty"


def test_the_equivalence_report_of_another_model_is_refused(registered: Registered) -> None:
    onnx_model = load_onnx_model(registered.version, registered.contract)
    equivalence_report = {**checked(registered), "model_digest": "0" * 64}
    with pytest.raises(EquivalenceError, match="another model"):
        collect_content(registered.version, onnx_model, registered.contract, equivalence_report, LOCK)
