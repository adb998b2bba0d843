"""The pipelines with their files on a real S3 server: they run as on this machine, and leave nothing on it."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.local_servers import Servers
from s3fs import S3FileSystem
from tests.conftest import ROOT, Project

BUCKET = "churn"
SAMPLE = ("simulated_customers.csv", "simulated_truth.csv")


def files_outside_mlruns(project: Project) -> dict[str, bytes]:
    return {
        str(file.relative_to(project.path)): file.read_bytes()
        for file in project.path.rglob("*")
        if file.is_file() and not {"mlruns", ".viz"} & set(file.relative_to(project.path).parts)  # kedro-viz' events
    }


def configure(project: Project, name: str, **content: Any) -> None:
    (project.path / "conf" / "local" / f"{name}.yml").write_text(yaml.safe_dump(content), encoding="utf-8")


def storage(servers: Servers, secret: str | None = None) -> dict[str, Any]:
    """The entry `storage` of a credentials.yml."""
    key = servers.environment()
    return {
        "key": key["AWS_ACCESS_KEY_ID"],
        "secret": secret or key["AWS_SECRET_ACCESS_KEY"],
        "endpoint_url": key["AWS_ENDPOINT_URL"],
    }


@pytest.fixture
def root(s3: Servers, project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder in the bucket, where the project's raw sample and everything else is stored."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # kedro-viz opens files without the keys of credentials.yml, and fsspec keeps that client for later tests.
    S3FileSystem.clear_instance_cache()
    prefix = f"data-{project.path.parent.name}"
    for name in SAMPLE:
        sample = project.path / "data/01_raw" / name
        s3.s3.client().upload_file(str(sample), BUCKET, f"{prefix}/01_raw/{name}")
        sample.unlink()
    configure(project, "globals", data_root=f"s3://{BUCKET}/{prefix}")
    return f"s3://{BUCKET}/{prefix}"


def keys_under(servers: Servers, root: str) -> set[str]:
    prefix = root.removeprefix(f"s3://{BUCKET}/")
    pages = servers.s3.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    return {found["Key"].removeprefix(f"{prefix}/") for page in pages for found in page.get("Contents", [])}


def test_data_engineering_runs_on_s3_with_the_keys_of_credentials_yml(s3: Servers, project: Project, root: str) -> None:
    configure(project, "credentials", storage=storage(s3))
    before = files_outside_mlruns(project)

    ended = project.kedro("run", "--pipelines", "data_engineering")

    assert ended.code == 0, ended.output
    assert {"03_primary/simulated/customers.parquet", "08_reporting/simulated/data_report.json"} <= keys_under(s3, root)
    assert files_outside_mlruns(project) == before


def test_the_simulation_draws_the_committed_sample_on_the_teams_s3(
    s3: Servers, project: Project, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.path}/mlruns/mlflow.db")
    monkeypatch.setenv("CHURN_DATA_ROOT", f"{root}/team/")
    before = files_outside_mlruns(project)

    ended = project.kedro("run", "--pipelines", "simulation", "--env", "production")

    assert ended.code == 0, ended.output
    for name in SAMPLE:
        drawn = s3.s3.client().get_object(
            Bucket=BUCKET, Key=f"{root.removeprefix(f's3://{BUCKET}/')}/team/01_raw/{name}"
        )
        assert drawn["Body"].read() == (ROOT / "data/01_raw" / name).read_bytes()
    assert files_outside_mlruns(project) == before


@pytest.mark.parametrize("fault", ["wrong key", "another bucket", "no file", "no server"])
def test_a_fault_of_the_store_ends_in_one_line(s3: Servers, project: Project, root: str, fault: str) -> None:
    entry = storage(s3, secret="wrong" if fault == "wrong key" else None)
    if fault == "no server":
        entry |= {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
    configure(project, "credentials", storage=entry)
    place = {"another bucket": "s3://mlflow/data", "no file": f"{root}/elsewhere"}.get(fault, root)
    configure(project, "globals", data_root=place)

    ended = project.kedro("run", "--pipelines", "data_engineering")

    said = {
        "wrong key": r"is refused \(.+\): correct the key",
        "no server": "cannot be used: .*http://127.0.0.1:9",
        "another bucket": r"is refused \(.+\): .+ or ask for access",
        "no file": "does not exist",
    }[fault]
    assert ended.code == 1
    assert "Traceback" not in ended.output
    lines = [line for line in ended.output.splitlines() if line.strip()][-3:]
    assert re.search(said, " ".join(lines)), ended.output
    assert place in " ".join(lines)


@pytest.mark.slow
def test_training_on_s3_equals_training_here_and_leaves_no_file(
    s3: Servers, project: Project, root: str, monkeypatch: pytest.MonkeyPatch, make_project: Any
) -> None:
    for name, value in s3.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    # SQLite needs a file on this machine.
    studies = {"type": "churn_pipeline.datasets.StudyDataset", "filepath": "mlruns/studies.db"}
    configure(project, "catalog", **{"{candidate}.studies": {**studies, "candidate": "{candidate}"}})
    here = make_project("logistic", "gradient_boosting")
    before = files_outside_mlruns(project)

    there = project.kedro("run", "--pipelines", "training")
    assert there.code == 0, there.output
    assert files_outside_mlruns(project) == before
    assert f"{root}/08_reporting/simulated/" in there.output

    monkeypatch.chdir(here.path)
    local = here.kedro("run", "--pipelines", "training")
    assert local.code == 0, local.output
    written = {
        name.removeprefix("data/")
        for name in files_outside_mlruns(here).keys() - before.keys()
        if name.startswith("data/") and not re.search(r"studies\.db|\.lock$|\.node_seconds", name)
    }
    stored = keys_under(s3, root)
    assert written <= stored | {f"01_raw/{name}" for name in SAMPLE}
    digests = {model_digest(each) for each in (project, here)}
    assert len(digests) == 1
    assert artifacts(project) == artifacts(here)

    monkeypatch.chdir(project.path)
    checked = project.kedro("table", "check", "simulated")
    assert checked.code == 0, checked.output
    configure(project, "globals", data_root=root, bentos=f"{root}/bentos")
    packaged = project.kedro("run", "--pipelines", "packaging")
    assert packaged.code == 0, packaged.output
    assert "bentos/churn_simulated.bento" in keys_under(s3, root)
    new = files_outside_mlruns(project).keys() - before.keys()
    assert {name for name in new if not name.startswith("bentos/store/")} == set()


def the_run(project: Project) -> Any:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project.path}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("churn_simulated")
    runs = client.search_runs([experiment.experiment_id])
    return client, next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)


def model_digest(project: Project) -> str:
    return the_run(project)[1].data.tags["model_digest"]


def artifacts(project: Project) -> set[str]:
    client, run = the_run(project)
    folders = ("plots", "reports")
    return {item.path for folder in folders for item in client.list_artifacts(run.info.run_id, folder)}


def test_production_says_which_variable_is_missing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHURN_DATA_ROOT", raising=False)
    ended = project.kedro("run", "--pipelines", "training", "--env", "production")
    assert ended.code == 1
    assert "the environment variable 'CHURN_DATA_ROOT' is not set" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://bucket/data", "ackage gcsfs is "),
        ("s4://bucket/data", "The address s4:// has an unknown protocol"),
    ],
)
def test_an_address_without_a_client_is_explained(project: Project, address: str, said: str) -> None:
    configure(project, "globals", data_root=address)
    ended = project.kedro("run", "--pipelines", "data_engineering")
    assert ended.code == 1
    assert said in ended.output
    assert "Traceback" not in ended.output


def test_the_folder_of_a_relative_data_root_is_in_the_project(project: Project, tmp_path: Path) -> None:
    (project.path / "data").rename(project.path / "elsewhere")
    configure(project, "globals", data_root="elsewhere")
    ended = project.kedro("run", "--pipelines", "data_engineering")
    assert ended.code == 0, ended.output
    assert (project.path / "elsewhere/03_primary/simulated/customers.parquet").is_file()
    assert (project.path / "elsewhere/.node_seconds.json").is_file()
    assert not (project.path / "data").exists()
