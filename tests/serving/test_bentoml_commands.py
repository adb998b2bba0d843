"""BentoML's commands on a Bento of the service, as BentoML's documentation gives them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bentoml
import pytest
import yaml
from tests.serving.running import ROOT, serving

from churn_pipeline.datasets import BentoDataset
from churn_pipeline.datasets.bento_dataset import BentoContent
from churn_pipeline.serving.bundle import FOLDER, Bundle
from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.openapi import example_customer

KEY, LINE = make_key("crm")
NAME = "churn_customers"


@dataclass
class Store:
    """A folder with the sources of a Bento, and a store."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"BENTOML_HOME": str(self.folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}

    def run(self, *words: str) -> str:
        """Run one of BentoML's commands in the folder of the sources; return what it prints."""
        command = [sys.executable, "-m", "bentoml", *words]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHURN_")}
        environment = {**kept, **self.environment, "COLUMNS": "100000"}  # BentoML breaks lines at the terminal's width
        done = subprocess.run(
            command, cwd=self.folder / "sources", env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def store(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which ``bentoml build`` has built a Bento."""
    folder = tmp_path_factory.mktemp("bentoml")
    (folder / "home").mkdir()
    files = {f"{FOLDER}/{file.name}": file.read_bytes() for file in bundle_folder.iterdir()}
    content = BentoContent(
        {**files, "requirements.txt": b"", "README.md": b""}, {"table": "customers"}, f"{FOLDER}/model_card.md"
    )
    dataset = BentoDataset(
        NAME,
        str(folder / "home"),
        export={"filepath": str(folder / "unused.bento")},
        package=str(ROOT / "src" / "churn_pipeline"),
        recipe=str(ROOT / "bentos" / "Dockerfile.j2"),
        base_image="python:3.11-slim",
    )
    dataset.write_sources(content, folder / "sources")
    made = Store(folder)
    made.run("build", "--version", "one")
    return made


def test_list_and_get_show_the_bento(store: Store) -> None:
    listed = json.loads(store.run("list", "--output", "json"))
    assert [bento["tag"] for bento in listed] == [f"{NAME}:one"]
    described = json.loads(store.run("get", f"{NAME}:latest", "--output", "json"))
    assert (described["name"], described["version"]) == (NAME, "one")
    assert described["labels"] == {"table": "customers"}


def test_a_bento_has_the_schema_of_its_apis(store: Store, bundle: Bundle) -> None:
    built = Path(store.run("get", f"{NAME}:one", "--output", "path").strip())
    schema = json.loads((built / "apis" / "schema.json").read_text())
    assert sorted(route["route"] for route in schema["routes"]) == ["/explain", "/predict"]
    document = yaml.safe_load((built / "apis" / "openapi.yaml").read_text())
    columns = document["components"]["schemas"]["Customer"]["properties"].keys()
    assert columns == bundle.contract.columns.keys() - {bundle.contract.roles.target.column}


def test_an_exported_and_imported_bento_is_served_by_its_tag(store: Store, bundle: Bundle) -> None:
    archive = store.folder / "churn.bento"
    store.run("export", f"{NAME}:one", str(archive))
    store.run("delete", "--yes", f"{NAME}:one")
    store.run("import", str(archive))
    with (
        serving(store.folder, {**store.environment, "CHURN_SERVING_KEYS": LINE}, service=f"{NAME}:one") as running,
        bentoml.SyncHTTPClient(running.url, token=KEY) as client,
    ):
        [prediction] = client.predict(customers=[example_customer(bundle)])["predictions"]
    assert 0 < prediction["churn_probability"] < 1
