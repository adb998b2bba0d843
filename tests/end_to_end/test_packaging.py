"""Packaging as a user runs it: an invented table becomes a Bento that answers requests, without a change of the code."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import bentoml
import pytest
import yaml
from tests.bentos import could_unpickle, files_in
from tests.conftest import Ended, Project, quick_parameters
from tests.customers import invented_table
from tests.serving.running import serving
from tests.serving.signing import write_keys
from tests.smoke import check_service

from churn_pipeline.serving.keys import make_key

AT_HOME = ("kedro", "kedro_datasets", "kedro_mlflow", "mlflow", "pandas", "pandera", "sklearn", "skops", "jupyterlab")
# Imports the service where nothing of training can be imported, and nothing of this checkout.
ALONE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import churn_pipeline.serving.service
import churn_pipeline
print(churn_pipeline.__file__)
"""


def packaged(project: Project, *params: str) -> Ended:
    return project.kedro("run", "--pipelines", "packaging", "--params", ",".join(("table=invented", *params)))


def last_bento(project: Project, table: str = "invented") -> bentoml.Bento:
    store = project.path / f"bentos/store/bentos/churn_{table}"
    return bentoml.Bento.from_path(store / (store / "latest").read_text(encoding="utf-8"))


def test_an_invented_table_is_packaged_and_served(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure(**quick_parameters())
    project.kedro("table", "draft", str(invented_table(random.Random(3), project.path)), "--name", "invented")

    trained = project.kedro("run", "--params", "table=invented")

    assert trained.code == 0, trained.output
    bento = last_bento(project)
    assert bento.info.labels["table"] == "invented"
    assert bento.info.labels["model_version"] == "1"
    assert not (Path(bento.path) / "src/bundle/model.sig").exists()

    # Packaging the same version again, in another run and with a signing key, gives the same Bento.
    shutil.rmtree(project.path / "bentos/store")
    public, other = write_keys(tmp_path, "key", password="secret"), write_keys(tmp_path, "other")
    monkeypatch.setenv("CHURN_SIGNING_KEY", str(tmp_path / "key.pem"))
    monkeypatch.setenv("CHURN_SIGNING_KEY_PASSWORD", "secret")
    again = packaged(project)
    assert again.code == 0, again.output
    assert last_bento(project).tag == bento.tag

    check_archive(project.path / "bentos/churn_invented.bento")
    check_import(Path(last_bento(project).path) / "src")
    key, line = make_key("test")
    environment = {"CHURN_SERVING_KEYS": line, "CHURN_SERVING_SIGNATURE_KEY": str(public)}
    with serving(tmp_path, environment, service=last_bento(project).path) as running:
        assert len(list(check_service(running.url, key, Path(last_bento(project).path) / "src/bundle"))) == 5

    # The key that signed it is the only one with which the service starts, and with which a person can verify it.
    wrong = {**environment, "CHURN_SERVING_SIGNATURE_KEY": str(other)}
    with (
        pytest.raises(AssertionError, match="the bundle is signed by another key"),
        serving(tmp_path, wrong, service=last_bento(project).path),
    ):
        pass
    archive = str(project.path / "bentos/churn_invented.bento")
    verified = project.kedro("verify-bundle", archive, "--key", str(public))
    assert (verified.code, verified.output) == (0, "The bundle is signed by this key: churn_invented version 1.\n")
    assert project.kedro("verify-bundle", archive, "--key", str(other)).code == 1

    # The model cannot be packaged with a contract that changed after its training.
    file = project.path / "conf/local/tables/invented.yml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    feature = next(iter(content["columns"]))
    content["columns"][feature] = {"dtype": "float64", "nullable": True, "greater_than": -1e6}
    project.table("invented", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    refused = packaged(project)
    assert refused.code == 1
    assert "trained under another contract of table 'invented'" in refused.output
    assert "Traceback" not in refused.output


def check_archive(archive: Path) -> None:
    files = dict(files_in(archive))
    assert {"src/bundle/model.onnx", "src/bundle/sbom.cdx.json", "bento.yaml"} <= files.keys()
    assert [name for name, content in files.items() if could_unpickle(name, content)] == []
    for name in ("src/requirements.txt", "env/python/requirements.txt"):
        packages = {line.split("==")[0] for line in files[name].decode().splitlines() if "==" in line}
        assert "onnxruntime" in packages
        assert not packages & {"kedro", "mlflow", "pandas", "scikit-learn", "jupyterlab"}


def check_import(source: Path) -> None:
    command = [sys.executable, "-P", "-c", ALONE, *AT_HOME]
    done = subprocess.run(
        command, cwd=source, env={"PYTHONPATH": str(source), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(source)


def test_packaging_before_training_is_refused(project: Project) -> None:
    ended = project.kedro("run", "--pipelines", "packaging")

    assert ended.code == 1
    assert "'churn_simulated':\n  - has no version champion or challenger in the registry: train one" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("wrong", ["packaging.tolerance=2", "packaging.hard_rows=1", "packaging.modell=champion"])
def test_a_mistake_in_the_settings_is_reported(wrong: str, project: Project) -> None:
    ended = project.kedro("run", "--pipelines", "packaging", "--params", wrong)

    assert ended.code == 1
    assert "configuration has mistakes" in ended.output
    assert wrong.split(".")[1].split("=", maxsplit=1)[0] in ended.output
