"""Datasets of MLflow, against the test's own store."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import skops.io
from kedro.io import DatasetError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from tests.customers import make_contract, raw_customers

from churn_pipeline.contract.cells import model_inputs
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.contract.example import example_customers
from churn_pipeline.datasets import (
    MlflowEvaluationsDataset,
    MlflowMetricsDataset,
    MlflowTagsDataset,
    RegisteredModelDataset,
    RegisteredVersionDataset,
)
from churn_pipeline.datasets.registered_model import model_signature
from churn_pipeline.evaluation.model_record import ModelRecord
from churn_pipeline.modelling.candidates import Candidate, build_candidate


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A SQLite store and a folder of artifacts, for all tests of this file."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_store, folder)
    before, uri = (mlflow.get_tracking_uri(), mlflow.get_registry_uri()), f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as environment:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            environment.setenv(name, uri)  # MLflow sets them itself and never resets them
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment("tests", artifact_location=f"file://{folder}/artifacts")
        )
        yield folder
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


SAVE_ARGS = {"pip_requirements": "requirements/model.txt"}


def fitted(seed: int = 0) -> tuple[Any, pd.DataFrame]:
    """A fitted candidate and rows for it."""
    from churn_pipeline.contract.validation import validate_table

    contract = make_contract()
    features = model_inputs(validate_table(raw_customers(60, seed), contract).customers, contract)
    candidate = Candidate.model_validate({"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"})
    model = build_candidate(candidate, contract.numeric, contract.categorical, seed)
    return model.fit(features, np.arange(60) % 2), features


def record(model: Any, documents: dict[str, str] | None = None, **metadata: str) -> ModelRecord:
    contract = make_contract()
    example = model_inputs(example_customers(contract), contract)
    return ModelRecord(model, contract.numeric, contract.categorical, example, metadata, documents or {})


def registered(name: str, alias: str = "challenger") -> RegisteredModelDataset:
    return RegisteredModelDataset(name=name, alias=alias, save_args=SAVE_ARGS)


# ---- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_tags_are_loaded_without_their_prefix() -> None:
    tags = MlflowTagsDataset(prefix="digest")
    with mlflow.start_run() as run:
        tags.save({"data": "3f2a", "rows": 5})  # type: ignore[dict-item]
        MlflowTagsDataset(prefix="other").save({"data": "else"})
        MlflowTagsDataset().save({"plain": "yes"})
        assert tags.load() == {"data": "3f2a", "rows": "5"}
        assert MlflowTagsDataset().load()["plain"] == "yes"
    written = mlflow.get_run(run.info.run_id).data.tags
    assert written["digest.data"] == "3f2a"
    assert written["other.data"] == "else"


@pytest.mark.usefixtures("store")
def test_without_a_run_no_tags_are_written_and_none_can_be_read() -> None:
    runs = len(mlflow.search_runs())
    MlflowTagsDataset(prefix="digest").save({"data": "3f2a"})
    assert mlflow.active_run() is None
    assert len(mlflow.search_runs()) == runs
    with pytest.raises(DatasetError, match="no active MLflow run"):
        MlflowTagsDataset(prefix="digest").load()


@pytest.mark.usefixtures("store")
# ---- metrics ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_metrics_are_logged_in_groups() -> None:
    given = {"auc": 0.8, "auc_lower": 0.7, "auc_upper": 0.9, "auc_best_possible": 0.85}
    with mlflow.start_run() as run:
        MlflowMetricsDataset(prefix="holdout").save(given)
    assert mlflow.get_run(run.info.run_id).data.metrics == {
        "holdout/auc": 0.8,
        "holdout/intervals/auc_lower": 0.7,
        "holdout/intervals/auc_upper": 0.9,
        "holdout/best_possible/auc_best_possible": 0.85,
    }
    with pytest.raises(DatasetError, match="read the dataset `metrics`"):
        MlflowMetricsDataset(prefix="holdout").load()


@pytest.mark.usefixtures("store")
def test_without_a_run_no_metrics_are_logged() -> None:
    runs = len(mlflow.search_runs())
    MlflowMetricsDataset(prefix="holdout").save({"auc": 0.8})
    assert len(mlflow.search_runs()) == runs


# ---- registered models -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("store")
def test_a_model_is_registered_and_the_alias_moves_to_the_newest() -> None:
    client, dataset = mlflow.MlflowClient(), registered("moves")
    one, features = fitted(1)
    other, _ = fitted(2)
    for number, model in enumerate((one, other), start=1):
        with mlflow.start_run() as run:
            dataset.save(record(model, table="customers", model_digest=f"d{number}"))
        version = client.get_model_version_by_alias("moves", "challenger")
        assert int(version.version) == number
        assert version.run_id == run.info.run_id
        assert version.tags == {"table": "customers", "model_digest": f"d{number}"}
        assert (dataset.load().predict_proba(features) == model.predict_proba(features)).all()
    client.set_registered_model_alias("moves", "champion", "1")
    assert (registered("moves", "champion").load().predict_proba(features) == one.predict_proba(features)).all()


@pytest.mark.usefixtures("store")
def test_a_run_that_cannot_be_rebuilt_fails_instead_of_registering() -> None:
    tags = ["digest.data", "model_digest"]
    dataset = RegisteredModelDataset("strict", "challenger", required_tags=tags, save_args=SAVE_ARGS)
    model, _ = fitted()
    with mlflow.start_run():
        mlflow.set_tag("model_digest", "d1")
        with pytest.raises(DatasetError) as caught:
            dataset.save(record(model))
        assert isinstance(caught.value.__cause__, ProjectError)  # `kedro run` prints its message
        message = str(caught.value.__cause__)
        assert "The model 'strict' was not registered" in message
        assert "lacks the tags digest.data, so" in message
        assert "kedro run --pipelines training" in message
        assert mlflow.MlflowClient().search_model_versions("name='strict'") == []
        mlflow.set_tag("digest.data", "3f2a")
        dataset.save(record(model))
    assert int(mlflow.MlflowClient().get_model_version_by_alias("strict", "challenger").version) == 1


@pytest.mark.usefixtures("store")
def test_binary_files_are_registered_and_read_with_the_version() -> None:
    model, _ = fitted()
    with mlflow.start_run():
        registered("files").save(replace(record(model, {"model_card.md": "# Card"}), files={"model.onnx": b"\x00\xff"}))
    version = RegisteredVersionDataset("files").load()
    assert version.files == {"model.onnx": b"\x00\xff"}
    assert version.documents == {"model_card.md": "# Card"}


@pytest.mark.usefixtures("store")
def test_a_registered_model_predicts_probabilities_with_its_signature(store: Path) -> None:
    model, features = fitted()
    with mlflow.start_run():
        registered("served").save(record(model))
    loaded = mlflow.pyfunc.load_model("models:/served@challenger")
    inputs, contract = loaded.metadata.signature.inputs, make_contract()
    assert inputs.input_names() == list(features)
    expected = ["DataType.double"] * len(contract.numeric) + ["DataType.string"] * len(contract.categorical)
    assert [str(kind) for kind in inputs.input_types()] == expected
    np.testing.assert_array_equal(loaded.predict(features), model.predict_proba(features))


@pytest.mark.usefixtures("store")
def test_a_version_is_read_with_its_documents_and_its_run() -> None:
    model, features = fitted()
    with mlflow.start_run() as run:
        mlflow.set_tag("git.commit", "c0ffee")
        # As it is logged now, and as it was before metrics had groups: such a version is packaged like any other.
        mlflow.log_metrics({"holdout/auc": 0.75, "holdout/intervals/auc_lower": 0.7, "holdout.brier": 0.12})
        registered("whole").save(record(model, {"model_card.md": "# Größe\n", "training_profile.json": "{}"}))
    read = RegisteredVersionDataset(name="whole").load()
    assert (read.name, read.version, read.run_id) == ("whole", "1", run.info.run_id)
    assert read.documents == {"model_card.md": "# Größe\n", "training_profile.json": "{}"}
    assert read.tags["git.commit"] == "c0ffee"
    assert read.metrics == {"holdout.auc": 0.75, "holdout.auc_lower": 0.7, "holdout.brier": 0.12}
    assert read.created.tzinfo is not None
    assert (read.model.predict_proba(features) == model.predict_proba(features)).all()


@pytest.mark.usefixtures("store")
def test_the_champion_is_the_default_then_the_challenger_or_a_chosen_version() -> None:
    model, _ = fitted()
    for _ in range(3):
        with mlflow.start_run():
            registered("rule").save(record(model))

    def version(select: str | int | None = None) -> str:
        return RegisteredVersionDataset(name="rule", select=select).load().version

    assert version() == "3"
    mlflow.MlflowClient().set_registered_model_alias("rule", "champion", "2")
    assert [version(), version("challenger"), version("champion"), version(1), version("1")] == [
        "2",
        "3",
        "2",
        "1",
        "1",
    ]


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("name", "select"), [("unknown", None), ("rule", "9"), ("rule", "nowhere")])
def test_a_missing_version_is_an_error(name: str, select: str | None) -> None:
    with pytest.raises(DatasetError) as caught:
        RegisteredVersionDataset(name=name, select=select).load()
    assert isinstance(caught.value.__cause__, ProjectError)  # which `kedro run` shows as it is
    assert f"has no version {select or 'champion or challenger'} in the registry: train one" in str(caught.value)


@pytest.mark.usefixtures("store")
def test_a_version_is_only_read() -> None:
    with pytest.raises(DatasetError, match="only ever read"):
        RegisteredVersionDataset(name="rule").save("a model")  # type: ignore[arg-type]


@pytest.mark.usefixtures("store")
def test_without_a_run_no_model_is_registered() -> None:
    registered("nowhere").save(record(LogisticRegression()))
    assert not mlflow.MlflowClient().search_registered_models("name = 'nowhere'")


@pytest.mark.usefixtures("store")
def test_types_that_only_the_model_file_trusts_are_refused() -> None:
    """MLflow loads what the model's own file lists as trusted; we do not."""
    model = FunctionTransformer(raw_customers)
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=["tests.customers.raw_customers"],
            pip_requirements=["scikit-learn"],
            registered_model_name="hostile",
            signature=model_signature(record(model)),
        )
    mlflow.MlflowClient().set_registered_model_alias("hostile", "challenger", "1")
    with pytest.raises(DatasetError, match=r"not trusted: tests\.customers\.raw_customers"):
        registered("hostile").load()
    with pytest.raises(DatasetError, match=r"not trusted: tests\.customers\.raw_customers"):
        RegisteredVersionDataset(name="hostile").load()


@pytest.mark.usefixtures("store")
def test_no_pickle_is_written(store: Path) -> None:
    model, _ = fitted()
    with mlflow.start_run():
        registered("no_pickle").save(record(model))
    folder = Path(mlflow.artifacts.download_artifacts("models:/no_pickle@challenger"))
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "model.skops" in files
    assert not {name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))}
    assert set(skops.io.get_untrusted_types(file=folder / "model.skops")) <= set(_trusted())


def _trusted() -> tuple[str, ...]:
    from churn_pipeline.modelling.trusted_types import TRUSTED_TYPES

    return TRUSTED_TYPES


def test_evaluations_are_the_other_runs_of_the_table_that_used_a_hold_out(store: Path) -> None:
    def run(**tags: str) -> None:
        with mlflow.start_run():
            mlflow.set_tags(tags)

    run(table="mine", holdout_rule="r", model_digest="m1")
    run(table="mine", model_digest="m2")  # packaging, or a search
    run(table="others", holdout_rule="r", model_digest="m3")
    uses = MlflowEvaluationsDataset(table="mine")
    assert uses.load() == []  # tracking is disabled
    with mlflow.start_run():
        mlflow.set_tags({"table": "mine", "holdout_rule": "r", "model_digest": "m4"})
        assert [tags["model_digest"] for tags in uses.load()] == ["m1"]
    with pytest.raises(DatasetError):
        uses.save([])


def test_a_missing_version_is_none_if_it_is_optional(store: Path) -> None:
    assert RegisteredVersionDataset(name="nothing", select="anchor", optional=True).load() is None
    with pytest.raises(DatasetError, match="has no version anchor"):
        RegisteredVersionDataset(name="nothing", select="anchor").load()
