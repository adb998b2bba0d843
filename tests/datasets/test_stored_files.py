"""Every dataset of files, at an address on a real S3 server; a dataset that needs this machine says so."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from deploy.local_servers import Servers
from kedro.io import AbstractDataset, DatasetError
from sklearn.linear_model import LogisticRegression
from tests.conftest import ROOT
from tests.customers import make_contract, raw_customers, table_file
from tests.datasets.test_fetched import CONTENT, Publisher, publisher  # noqa: F401 - a fixture
from tests.datasets.test_files import onnx_model

from churn_pipeline.contract.errors import TableError
from churn_pipeline.datasets import (
    ChunkedCSVDataset,
    ContractDataset,
    FetchedDataset,
    MlflowFileDataset,
    OnnxDataset,
    OptionalDataset,
    RawTableDataset,
    SigningKeyDataset,
    SkopsDataset,
    StudyDataset,
)
from churn_pipeline.datasets.bento_dataset import BentoDataset
from churn_pipeline.datasets.files import StoredFile

BUCKET = "churn"


@pytest.fixture
def credentials(s3: Servers) -> dict[str, Any]:
    """fsspec's arguments for the project's key, as in credentials.yml."""
    key = s3.environment()
    return {
        "key": key["AWS_ACCESS_KEY_ID"],
        "secret": key["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": key["AWS_ENDPOINT_URL"],
        "client_kwargs": {"region_name": key["AWS_DEFAULT_REGION"]},
    }


@pytest.fixture
def root(tmp_path: Path, credentials: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder in the bucket; the process runs in an empty folder, in which nothing may appear."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return f"s3://{BUCKET}/tests/{tmp_path.parent.name}-{tmp_path.name}"


def keys_under(s3: Servers, root: str) -> list[str]:
    listed = s3.s3.client().list_objects_v2(Bucket=BUCKET, Prefix=root.removeprefix(f"s3://{BUCKET}/"))
    return [found["Key"].rsplit("/", 1)[-1] for found in listed.get("Contents", [])]


def nothing_was_written_here() -> bool:
    return not list(Path.cwd().iterdir())


Saved = tuple[AbstractDataset[Any, Any], Any, Callable[[Any], Any]]


def skops(file: dict[str, Any]) -> Saved:
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    return SkopsDataset(**file), model, lambda loaded: loaded.coef_.tolist()


def onnx(file: dict[str, Any]) -> Saved:
    return OnnxDataset(**file), onnx_model(), lambda loaded: loaded.SerializeToString(deterministic=True)


def chunked(file: dict[str, Any]) -> Saved:
    return ChunkedCSVDataset(**file), pd.DataFrame({"n": [1, 2]}), lambda loaded: loaded["n"].tolist()


@pytest.mark.parametrize("made", [skops, onnx, chunked])
def test_what_is_saved_on_s3_is_loaded_and_nothing_is_written_here(
    s3: Servers, root: str, credentials: dict[str, Any], made: Callable[[dict[str, Any]], Saved]
) -> None:
    dataset, data, essence = made({"filepath": f"{root}/models/file", "credentials": credentials})
    assert not dataset.exists()
    dataset.save(data)
    if isinstance(dataset, ChunkedCSVDataset):
        assert not dataset.exists()
        dataset.confirm()
    assert dataset.exists()
    assert essence(dataset.load()) == essence(data)
    assert keys_under(s3, root) == ["file"]
    assert nothing_was_written_here()


def test_chunks_reach_s3_when_the_node_has_finished(s3: Servers, root: str, credentials: dict[str, Any]) -> None:
    file = {"filepath": f"{root}/drawn.csv", "credentials": credentials}
    interrupted = ChunkedCSVDataset(**file)
    interrupted.save(pd.DataFrame({"n": [0]}))
    del interrupted
    assert keys_under(s3, root) == []
    dataset = ChunkedCSVDataset(**file)
    for numbers in ([1, 2], [3]):
        dataset.save(pd.DataFrame({"n": numbers}))
    dataset.confirm()
    assert ChunkedCSVDataset(**file).load()["n"].tolist() == [1, 2, 3]
    with pytest.raises(DatasetError, match="Nothing was written"):
        dataset.confirm()


def test_a_contract_is_read_from_s3(root: str, credentials: dict[str, Any]) -> None:
    address = f"{root}/customers.yml"
    dataset = ContractDataset(filepath=address, credentials=credentials)
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"The table file customers\.yml:\n  - does not exist"):
        dataset.load()
    StoredFile(address, credentials).write(yaml.safe_dump(table_file(), sort_keys=False).encode())
    assert dataset.exists()
    assert dataset.load() == make_contract()


def test_a_raw_table_and_an_optional_one_are_read_from_s3(root: str, credentials: dict[str, Any]) -> None:
    file = {"type": "pandas.CSVDataset", "filepath": f"{root}/customers.csv", "credentials": credentials}
    source = {**file, "load_args": {"dtype": "str", "keep_default_na": False}}
    with pytest.raises(TableError, match=r"customers\.csv cannot be read:\n  - the file does not exist"):
        raise_cause(RawTableDataset(dataset=source))
    StoredFile(f"{root}/customers.csv", credentials).write(raw_customers(5).to_csv(index=False).encode())
    table = RawTableDataset(dataset=source)
    pd.testing.assert_frame_equal(table.load().astype(object), raw_customers(5))
    assert table.file_rows([1, 5]) == {1: 2, 5: 6}
    assert len(OptionalDataset(source).load()) == 5


def raise_cause(dataset: AbstractDataset[Any, Any]) -> None:
    try:
        dataset.load()
    except DatasetError as error:
        raise error.__cause__ or error from None


def test_a_public_file_is_downloaded_to_s3_once(
    s3: Servers,
    root: str,
    credentials: dict[str, Any],
    publisher: Publisher,  # noqa: F811
) -> None:
    def fetched() -> FetchedDataset:
        return FetchedDataset(
            dataset={"type": "pandas.CSVDataset", "load_args": {"dtype": "str"}, "credentials": credentials},
            url=publisher.url,
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            path=root,
        )

    assert fetched().load()["churn"].tolist() == ["yes", "no"]
    fetched().load()
    assert publisher.requests == 1
    StoredFile(f"{root}/customers.csv", credentials).write(b"changed")
    assert fetched().load()["churn"].tolist() == ["yes", "no"]
    assert publisher.requests == 2
    assert keys_under(s3, root) == ["customers.csv"]
    assert nothing_was_written_here()


def test_a_file_on_s3_is_also_logged_to_mlflow(
    root: str, credentials: dict[str, Any], tmp_path: Path, empty_store: Path
) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = mlflow.create_experiment("files", artifact_location=f"file://{tmp_path}/artifacts")
    file = {"type": "json.JSONDataset", "filepath": f"{root}/gate.json", "credentials": credentials}
    dataset = MlflowFileDataset(dataset=file, artifact_path="reports")
    dataset.save({"verdict": "without a run"})
    with mlflow.start_run(experiment_id=experiment) as run:
        dataset.save({"verdict": "passed"})
    assert dataset.load() == {"verdict": "passed"}
    logged = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/reports/gate.json")
    assert logged == {"verdict": "passed"}
    assert len(mlflow.search_runs([experiment])) == 1
    assert nothing_was_written_here()


@pytest.mark.parametrize(
    ("file", "preview_type"),
    [
        ({"type": "pandas.CSVDataset", "filepath": "table.csv"}, "TablePreview"),
        ({"type": "json.JSONDataset", "filepath": "report.json"}, "JSONPreview"),
        ({"type": "text.TextDataset", "filepath": "text.txt"}, None),
    ],
)
def test_kedro_viz_previews_a_logged_file_as_before(
    tmp_path: Path, file: dict[str, Any], preview_type: str | None
) -> None:
    from kedro_viz.models.flowchart.node_metadata import DataNodeMetadata
    from kedro_viz.models.flowchart.nodes import GraphNode

    dataset = MlflowFileDataset(dataset={**file, "filepath": str(tmp_path / file["filepath"])})
    dataset.save({"csv": pd.DataFrame({"n": [1]}), "json": {"n": 1}, "txt": "n"}[file["filepath"].split(".")[1]])
    node = GraphNode.create_data_node("file", "file", None, set(), dataset, None)
    shown = DataNodeMetadata(data_node=node)
    assert shown.preview_type == preview_type
    assert (shown.preview is None) == (preview_type is None)
    assert shown.filepath == str(tmp_path / file["filepath"])


# ---- what must be on this machine ------------------------------------------------------------------------------------


def test_a_dataset_that_needs_this_machine_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"export": {"filepath": "x.bento"}, "package": "p", "recipe": "r", "base_image": "i"}
    for refused, words in [
        (
            lambda: StudyDataset("s3://b/studies.db", "logistic").load(),
            "A SQLite file cannot be used at s3://b",
        ),
        (
            lambda: SigningKeyDataset({"private_key": "s3://b/key.pem"}).load(),
            "The signing key cannot be used at s3://b",
        ),
        (lambda: BentoDataset("churn", "s3://b/store", **files), "The store of Bentos cannot be used at s3://b/store"),
    ]:
        with pytest.raises(DatasetError) as caught:
            refused()
        said = str(caught.value.__cause__ or caught.value)
        assert said.startswith(words)
        assert "\n" not in said
    assert not list(tmp_path.iterdir())


# ---- this machine ----------------------------------------------------------------------------------------------------


def test_a_write_that_fails_keeps_the_file_and_leaves_no_part(tmp_path: Path) -> None:
    file = StoredFile(str(tmp_path / "model.onnx"))
    file.write(b"old")
    with pytest.raises(TypeError):
        file.write("text")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        file.write_from(tmp_path / "none")
    assert file.read() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_credentials_of_a_store_do_no_harm_on_this_machine(tmp_path: Path) -> None:
    file = StoredFile(f"file://{tmp_path}/model.onnx", {"key": "k", "secret": "s", "unknown": 1})
    file.write(b"content")
    assert (tmp_path / "model.onnx").read_bytes() == b"content"
    assert file.local_path == tmp_path / "model.onnx"


def test_a_client_of_a_store_is_imported_only_if_a_file_is_there() -> None:
    code = (
        "import sys\n"
        "from churn_pipeline.datasets import ChunkedCSVDataset, OnnxDataset, SkopsDataset\n"
        "OnnxDataset('s3://b/m.onnx'), SkopsDataset('s3://b/m.skops'), ChunkedCSVDataset(filepath='s3://b/m.csv')\n"
        "OnnxDataset('data/m.onnx').exists()\n"
        "print({'s3fs', 'boto3', 'botocore', 'aiohttp'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", done.stdout
