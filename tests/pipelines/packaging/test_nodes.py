"""Nodes of packaging: what is refused, what is proven, and what is shipped."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.pipelines.packaging.conftest import BOOSTING, Registered, register

from churn_pipeline.contract.errors import ProjectError, TableError
from churn_pipeline.contract.table import Contract
from churn_pipeline.datasets.bento_dataset import BentoContent
from churn_pipeline.modelling.onnx_conversion import model_digest
from churn_pipeline.modelling.preprocessing import round_to_float32
from churn_pipeline.pipelines.packaging.equivalence import Answers, EquivalenceError
from churn_pipeline.pipelines.packaging.nodes import (
    PackagingSettings,
    accept,
    check_equivalence,
    convert_version,
    gather,
)
from churn_pipeline.serving.bundle import load_bundle

SETTINGS = PackagingSettings(hard_rows=3_000)
LOCK = "numpy==2.4.6 \\\n    --hash=sha256:" + "a" * 64 + "\n    # via bentoml\n"


def proven(given: Registered, compiled: onnx.ModelProto | None = None) -> dict[str, object]:
    model = convert_version(given.version, given.contract) if compiled is None else compiled
    return check_equivalence(given.version, model, given.features, given.contract, SETTINGS, seed=0)


def gathered(given: Registered) -> BentoContent:
    compiled = convert_version(given.version, given.contract)
    return gather(given.version, compiled, given.contract, proven(given), LOCK)


def shifted(compiled: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """The same model, all of whose answers are higher."""
    changed = onnx.ModelProto()
    changed.CopyFrom(compiled)
    [output] = changed.graph.output
    changed.graph.node[-1].output[0] = "before"
    changed.graph.initializer.append(helper.make_tensor("shift", TensorProto.DOUBLE, [1], [by]))
    changed.graph.node.append(helper.make_node("Add", ["before", "shift"], [output.name]))
    return changed


# ---- what is accepted ------------------------------------------------------------------------------------------------


def test_a_version_of_this_contract_is_accepted(registered: Registered) -> None:
    version, tags = accept(registered.version, registered.contract)
    assert version == registered.version
    assert tags == {"model": "churn_customers", "version": "3"}


def test_a_model_of_another_contract_is_refused(registered: Registered) -> None:
    columns = {**registered.contract.columns, "age": registered.contract.columns["months"]}
    other = registered.contract.model_copy(update={"columns": columns})
    with pytest.raises(ProjectError, match=r"Version 3 .*\n.*another contract of table 'customers'.*Train again"):
        accept(registered.version, other)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"documents": {}}, r"model_card\.md and training_profile\.json"),
        ({"metrics": {"holdout.auc": 0.7}}, "threshold"),
    ],
)
def test_a_version_without_what_a_package_needs_is_refused(
    lost: dict[str, object], said: str, registered: Registered
) -> None:
    with pytest.raises(ProjectError, match=f"registered without {said}: train again"):
        accept(replace(registered.version, **lost), registered.contract)


def test_a_version_registered_under_the_former_name_of_the_profile_is_accepted(registered: Registered) -> None:
    documents = dict(registered.version.documents)
    documents["reference.json"] = documents.pop("training_profile.json")
    version, _ = accept(replace(registered.version, documents=documents), registered.contract)
    assert version.documents == registered.version.documents


def test_a_warning_is_logged_where_the_code_compiles_to_another_file(
    registered: Registered, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        convert_version(registered.version, registered.contract)
        assert not caplog.records
        tags = {**registered.version.tags, "model_digest": "0" * 64}
        convert_version(replace(registered.version, tags=tags), registered.contract)
    assert "another file than at its training" in caplog.text
    assert ", then 000000000000…)" in caplog.text


# ---- the proof -------------------------------------------------------------------------------------------------------


def test_the_real_model_passes_and_the_report_says_on_what(registered: Registered) -> None:
    report = proven(registered)
    rows = report["rows"]
    assert isinstance(rows, dict)
    assert [found["rows"] for found in rows.values()] == [200, 200, 3_000, 500]
    assert all(found["largest_difference"] < 1e-12 for found in rows.values())
    assert report["model_digest"] == model_digest(convert_version(registered.version, registered.contract))


def test_answers_that_are_all_a_little_higher_fail(registered: Registered) -> None:
    compiled = convert_version(registered.version, registered.contract)
    assert proven(registered, shifted(compiled, 5e-7))
    with pytest.raises(EquivalenceError) as caught:
        proven(registered, shifted(compiled, 2e-6))
    said = str(caught.value)
    assert "Nothing was packaged" in said
    assert "200 of 200 held-out customers: row " in said
    assert "by 2e-06" in said
    assert "3,000 of 3,000 hard rows" in said


def test_scaled_trees_in_float32_fail_on_hard_rows() -> None:
    """The reason for the proof: on split values, a plain conversion is wrong by whole probabilities."""
    given = register({**BOOSTING, "numeric": "scaled"}, ignored=("region", "plan", "lines", "calls"))
    assert not given.contract.categorical

    with pytest.raises(EquivalenceError) as caught:
        proven(given, plainly_converted(given))

    said = str(caught.value)
    assert re.search(r"of 3,000 hard rows: row \d+ by 0\.\d+ \(changed: \w+", said)
    assert proven(given)  # compiled as we do it, the same model passes


def plainly_converted(given: Registered) -> onnx.ModelProto:
    """Scaler and trees as scikit-learn's converter writes them, in float32, under our names of inputs and output."""
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


def test_a_proof_shows_what_was_made_up_and_no_customers_value(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("churn_pipeline.pipelines.packaging.equivalence.SHOWN", 10_000)
    features = registered.features.assign(plan="SECRET")
    features.loc[7, "charge"] = 1000.987654  # the largest: it and its neighbours are among the edges
    given = registered._replace(features=features)
    with pytest.raises(EquivalenceError) as caught:
        proven(given, shifted(convert_version(given.version, given.contract), 0.1))
    said = str(caught.value)
    assert "1000.98765" not in said
    assert "SECRET" not in said
    assert "plan = never seen" in said
    assert "charge = 1e+30" in said


def test_a_decision_may_differ_only_beside_the_threshold() -> None:
    trained = np.array([0.3 + 5e-7, 0.31, 0.5])
    wide = {"threshold": 0.3, "tolerance": 0.5}
    assert Answers(trained, np.array([0.3 - 1e-3, 0.4, 0.5]), **wide).broken.tolist() == []
    assert Answers(trained, np.array([0.4, 0.29, 0.5]), **wide).broken.tolist() == [1]
    report = Answers(trained, np.array([0.3 - 1e-3, 0.29, 0.5]), **wide).report()
    assert report["decisions_that_differ"] == 2


def test_no_answer_is_no_equal_answer() -> None:
    answers = Answers(np.array([0.5, 0.5]), np.array([np.nan, 0.5]), threshold=0.3, tolerance=1e-6)
    assert answers.broken.tolist() == [0]
    assert answers.report()["largest_difference"] == np.inf


def test_a_hold_out_of_other_columns_is_refused(registered: Registered) -> None:
    with pytest.raises(TableError, match=r"hold-out of table 'customers'.*\n.*lacks calls, plan: train again"):
        proven(registered._replace(features=registered.features.drop(columns=["plan", "calls"])))


# ---- what is shipped -------------------------------------------------------------------------------------------------


def test_what_is_shipped_is_what_a_service_reads(registered: Registered, tmp_path: Path) -> None:
    content = gathered(registered)
    for name, held in content.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(held)
    bundle = load_bundle(tmp_path / "bundle")
    manifest = bundle.manifest
    assert (manifest.table, manifest.model_name, manifest.model_version) == ("customers", "churn_customers", "3")
    assert (manifest.run_id, manifest.commit, manifest.candidate) == ("5" * 32, "c" * 40, "boosting")
    assert manifest.threshold == 0.3
    assert manifest.metrics == {"auc": 0.75}
    assert set(manifest.files) == {
        "contract.json",
        "training_profile.json",
        "model_card.md",
        "equivalence_report.json",
        "sbom.cdx.json",
    }
    assert content.labels["model_digest"] == manifest.model_digest
    assert content.labels["threshold"] == "0.3"
    assert set(bundle.training_profile.numeric) == set(registered.contract.numeric)
    assert content.files["requirements.txt"] == LOCK.encode()


def test_the_contract_is_shipped_whole_but_for_its_costs(registered: Registered) -> None:
    content = gathered(registered)
    shipped = Contract.model_validate_json(content.files["bundle/contract.json"])
    assert shipped == registered.contract.model_copy(update={"costs": None})
    assert not [name for name, held in content.files.items() if b"31337" in held.replace(b",", b"")]


def test_the_same_version_gives_the_same_bytes(registered: Registered) -> None:
    assert gathered(registered) == gathered(registered)


def test_uncommitted_changes_are_told(registered: Registered) -> None:
    tags = {**registered.version.tags, "git.dirty": "true"}
    content = gathered(registered._replace(version=replace(registered.version, tags=tags)))
    assert json.loads(content.files["bundle/manifest.json"])["commit"] == "c" * 40 + "-dirty"


def test_the_proof_of_another_model_is_refused(registered: Registered) -> None:
    compiled = convert_version(registered.version, registered.contract)
    equivalence_report = {**proven(registered), "model_digest": "0" * 64}
    with pytest.raises(EquivalenceError, match="another model"):
        gather(registered.version, compiled, registered.contract, equivalence_report, LOCK)
