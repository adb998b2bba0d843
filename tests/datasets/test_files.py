"""Datasets of files: the raw table, contracts, optional tables and models, and their error messages."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from kedro.io import AbstractDataset, DatasetError
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from tests.customers import make_contract, raw_customers, table_file

from churn_pipeline import datasets
from churn_pipeline.contract.errors import TableError
from churn_pipeline.datasets import ContractDataset, OnnxDataset, OptionalDataset, RawTableDataset, SkopsDataset
from churn_pipeline.modelling.candidates import Candidate, build_candidate


def csv_source(path: Path, **arguments: Any) -> dict[str, Any]:
    return {"type": "pandas.CSVDataset", "filepath": str(path), "load_args": {"dtype": "str", **arguments}}


def said_on_load(dataset: AbstractDataset[Any, Any]) -> str:
    with pytest.raises((TableError, DatasetError)) as caught:
        dataset.load()
    return str(caught.value)


@pytest.mark.parametrize("name", datasets.__all__)
def test_every_dataset_is_found_by_its_name(name: str) -> None:
    assert issubclass(getattr(datasets, name), AbstractDataset)


def test_an_unknown_name_is_not_found() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = datasets.Nothing


# ---- the raw table ---------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "customers.csv"
    raw_customers(5).to_csv(path, index=False)
    return path


def test_a_raw_table_is_read_from_its_source(path: Path, tmp_path: Path) -> None:
    table = RawTableDataset(dataset=csv_source(path, keep_default_na=False))
    assert table.exists()
    pd.testing.assert_frame_equal(table.load().astype(object), raw_customers(5))
    raw_customers(5).to_parquet(tmp_path / "customers.parquet")
    parquet = RawTableDataset(
        dataset={"type": "pandas.ParquetDataset", "filepath": str(tmp_path / "customers.parquet")}
    )
    pd.testing.assert_frame_equal(parquet.load().astype(object), raw_customers(5))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        ("id,name\n1,Müller\n".encode("latin-1"), "it is not utf-8 text"),
        (b"id,name\n1,2\n1,2,3\n", "its rows cannot be parsed (expected 2 fields in line 3, saw 3)"),
        (b'id,name\n1,"cut off', "it may be cut off inside a quoted cell"),
    ],
    ids=["empty", "another encoding", "ragged", "cut off"],
)
def test_an_unreadable_file_is_explained(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    said = said_on_load(RawTableDataset(dataset=csv_source(path)))
    assert str(path) in said
    assert "cannot be read" in said
    assert words in said


def test_a_wrong_encoding_is_explained(path: Path) -> None:
    assert "encoding" in said_on_load(RawTableDataset(dataset=csv_source(path, encoding="utf-16")))


def test_an_absent_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = RawTableDataset(dataset=csv_source(tmp_path / "none.csv"))
    assert not table.exists()
    monkeypatch.delenv("CHURN_PUBLIC_DATA", raising=False)
    assert "the file does not exist: none.csv. For a public table, set CHURN_PUBLIC_DATA" in said_on_load(table)
    monkeypatch.setenv("CHURN_PUBLIC_DATA", "/folder")
    assert said_on_load(table).endswith("the file does not exist: none.csv.")


def test_a_source_without_a_table_is_explained(tmp_path: Path) -> None:
    (tmp_path / "customers.json").write_text("[1, 2]")
    table = RawTableDataset(dataset={"type": "json.JSONDataset", "filepath": str(tmp_path / "customers.json")})
    assert "is a list, not a pandas DataFrame" in said_on_load(table)


def test_an_unexpected_error_is_not_hidden(path: Path) -> None:
    with pytest.raises(DatasetError, match="no_such_argument"):
        RawTableDataset(dataset=csv_source(path, no_such_argument=1)).load()


def test_read_only_datasets_are_never_written(path: Path) -> None:
    for dataset in (
        RawTableDataset(dataset=csv_source(path)),
        OptionalDataset(csv_source(path)),
        ContractDataset(str(path)),
    ):
        before = path.read_bytes()
        with pytest.raises(DatasetError, match=r"never|only ever read"):
            dataset.save(pd.DataFrame())
        assert path.read_bytes() == before


# ---- contracts and optional tables -----------------------------------------------------------------------------------


def test_a_contract_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "customers.yml"
    dataset = ContractDataset(filepath=str(path))
    assert not dataset.exists()
    path.write_text(yaml.safe_dump(table_file(), sort_keys=False))
    assert dataset.exists()
    assert dataset.load() == make_contract()
    path.write_text(yaml.safe_dump({**table_file(), "rolls": {}}))
    assert "rolls" in said_on_load(dataset)


def test_an_optional_dataset_without_a_source_is_none(path: Path) -> None:
    assert OptionalDataset(None).load() is None
    assert OptionalDataset(None).exists()
    assert len(OptionalDataset(csv_source(path)).load()) == 5
    gone = OptionalDataset(csv_source(path.with_name("gone.csv")))
    assert not gone.exists()
    with pytest.raises(DatasetError):
        gone.load()


# ---- models ----------------------------------------------------------------------------------------------------------


def onnx_model() -> onnx.ModelProto:
    node = helper.make_node("Sigmoid", ["x"], ["y"])
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in "xy")
    return helper.make_model(helper.make_graph([node], "g", [inputs], [outputs]))


def test_an_onnx_model_keeps_its_bytes(tmp_path: Path) -> None:
    one, other = (OnnxDataset(filepath=str(tmp_path / "models" / name)) for name in ("one.onnx", "other.onnx"))
    assert not one.exists()
    one.save(onnx_model())
    assert one.exists()
    other.save(one.load())
    content = [(tmp_path / "models" / name).read_bytes() for name in ("one.onnx", "other.onnx")]
    assert content[0] == content[1] == onnx_model().SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "candidate",
    [
        {"class": "sklearn.linear_model.LogisticRegression", "numeric": "scaled"},
        {
            "class": "sklearn.linear_model.LogisticRegression",
            "numeric": "splines",
            "numeric_arguments": {"n_knots": 4, "degree": 3},
        },
        {"class": "sklearn.ensemble.RandomForestClassifier", "arguments": {"n_estimators": 5}},
        {"class": "sklearn.ensemble.HistGradientBoostingClassifier", "arguments": {"max_iter": 5}},
    ],
    ids=["logistic", "splines", "forest", "boosting"],
)
def test_a_loaded_candidate_predicts_the_same_probabilities(tmp_path: Path, candidate: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    features = pd.DataFrame({"n": rng.normal(size=80), "level": rng.choice(["a", "b", ""], 80)})
    model = build_candidate(Candidate.model_validate(candidate), ["n"], ["level"], seed=0)
    model.fit(features, rng.integers(0, 2, 80))
    dataset = SkopsDataset(filepath=str(tmp_path / "models" / "model.skops"))
    dataset.save(model)
    assert dataset.exists()
    assert (dataset.load().predict_proba(features) == model.predict_proba(features)).all()


def test_a_type_that_is_not_trusted_is_refused_by_name(tmp_path: Path) -> None:
    dataset = SkopsDataset(filepath=str(tmp_path / "model.skops"))
    dataset.save(FunctionTransformer(datetime.datetime.fromisoformat))
    with pytest.raises(DatasetError, match=r"model\.skops contains types that are not trusted: .*"):
        dataset.load()
    dataset.save(FunctionTransformer(raw_customers))
    with pytest.raises(DatasetError, match=r"not trusted: tests\.customers\.raw_customers"):
        dataset.load()
    dataset.save(LogisticRegression())
    assert isinstance(dataset.load(), LogisticRegression)
