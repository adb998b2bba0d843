"""The project without a checkout: a wheel and a packed configuration, in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml
from tests.conftest import ROOT, _switched_off, quick_parameters
from tests.servers import Team
from tests.serving.running import serving

from churn_pipeline.hooks import next_steps
from churn_pipeline.serving.keys import make_key

UV = ROOT / ".venv" / "bin" / "uv"
LOCKS = ROOT / "requirements" / "extras"
SAMPLE = ("simulated_customers.csv", "simulated_truth.csv")
KEY, LINE = make_key("crm")


class Installed(NamedTuple):
    """An installed package, the archive of its configuration, and variables that its processes get."""

    python: Path
    conf: Path
    variables: Mapping[str, str] = {}

    def run(self, folder: Path, *words: str, code: int = 0) -> str:
        """Run the package in a folder, and return what it printed."""
        ended = subprocess.run(
            [self.python, "-m", "churn_pipeline", *words],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == code, ended.stdout
        return ended.stdout

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        left_out = ("MLFLOW_TRACKING_URI", "KEDRO_ENV", "KEDRO_LOGGING_CONFIG", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if name not in left_out}
        return {**kept, "CHURN_CONF_SOURCE": str(self.conf), **self.variables}


def pack(folder: Path, environment: str = "local", **names: str) -> Path:
    """Pack the configuration as `kedro package` does, with names and the parameters of a quick training in an environment."""
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / environment).mkdir(exist_ok=True)
    for name, block in quick_parameters("logistic").items():
        content = {**_switched_off(block), **block} if name == "candidates" else block
        (folder / "conf" / environment / f"parameters_{name}.yml").write_text(
            yaml.safe_dump({name: content}), encoding="utf-8"
        )
    with (folder / "conf" / environment / "globals.yml").open("a", encoding="utf-8") as file:
        yaml.safe_dump(names, file)
    return Path(shutil.make_archive(str(folder / "packed"), "gztar", folder, "conf"))


class Wheel(NamedTuple):
    """A wheel, and the commit that it was built from."""

    file: Path
    commit: str

    def install(self, folder: Path, *locks: str) -> Path:
        """Install the wheel with these locks into a new environment, and return its Python."""
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        pip: tuple[str | Path, ...] = (UV, "pip", "install", "--quiet", "--python", folder, "--no-deps")
        for lock in locks:
            subprocess.run([*pip, "--require-hashes", "--requirement", LOCKS / f"{lock}.txt"], check=True)
        subprocess.run([*pip, self.file], check=True)
        return folder / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """The wheel of the last commit."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, because setuptools leaves its own folders beside pyproject.toml.
    checkout, dist = folder / "checkout", folder / "dist"
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
    build: tuple[str | Path, ...] = (
        "--quiet",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        dist,
    )
    subprocess.run([UV, "build", *build, checkout], check=True)
    git: list[str | Path] = ["git", "-C", checkout, "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    [file] = dist.glob("*.whl")
    return Wheel(file, commit)


def records(folder: Path) -> list[dict[str, object]]:
    """The records of the runs in a folder's MLflow store."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("mlruns/artifacts/**/record.json")]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}


def test_a_packed_configuration_runs_in_an_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    (folder / "data" / "01_raw").mkdir(parents=True)
    for name in SAMPLE:
        shutil.copy(ROOT / "data" / "01_raw" / name, folder / "data" / "01_raw")

    printed = Installed(Path(sys.executable), pack(tmp_path)).run(folder, "--pipelines", "data_engineering")

    assert "Rows in 8,000 = valid 8,000 + quarantined 0" in printed
    assert "Using" not in printed  # Kedro's own logging says which file it uses
    assert (folder / "data/03_primary/simulated/customers.parquet").is_file()
    assert files(folder) == {"data", "mlruns"}
    [record] = records(folder)
    assert record["table_file"] == (ROOT / "conf/base/tables/simulated.yml").read_text(encoding="utf-8")


def test_the_next_steps_outside_a_project_need_no_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: uri)
    assert "kedro viz" in next_steps(ROOT, "data/08_reporting/telco/")

    steps = next_steps(tmp_path, "data/08_reporting/telco/")

    assert f"  mlflow ui --backend-store-uri {uri}  runs" in steps
    assert "kedro" not in steps


@pytest.mark.slow
def test_a_wheel_without_extras_simulates_trains_and_packages_in_an_empty_folder(wheel: Wheel, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    installed = Installed(wheel.install(tmp_path / "venv", "base"), pack(tmp_path))

    simulated = installed.run(folder, "--pipelines", "simulation")
    assert f"Wrote 8,000 rows to {folder / 'data/01_raw/simulated_customers.csv'}" in simulated
    for name in SAMPLE:
        assert (folder / "data/01_raw" / name).read_bytes() == (ROOT / "data/01_raw" / name).read_bytes()
    trained = installed.run(folder, "--pipelines", "training")
    installed.run(folder, "--pipelines", "packaging")
    promoted = installed.run(folder, "promote", "simulated")

    assert f"mlflow ui --backend-store-uri sqlite:///{folder}/mlruns/mlflow.db" in trained
    assert "kedro viz" not in trained
    assert "WARNING" not in trained
    assert {record["commit"] for record in records(folder)} == {wheel.commit}
    assert {record["dirty"] for record in records(folder)} == {False}
    assert (folder / "bentos/churn_simulated.bento").is_file()
    assert files(folder) == {"bentos", "data", "mlruns"}
    assert f"mlflow ui --backend-store-uri sqlite:///{folder}/mlruns/mlflow.db" in trained
    assert "kedro mlflow ui" not in trained
    assert "champion" in promoted


@pytest.mark.slow
def test_a_wheel_trains_and_packages_in_two_empty_folders_on_a_teams_servers(
    wheel: Wheel, team: Team, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    # A name of this test alone, because the tests share the registry.
    conf = pack(tmp_path, "production", model_name=f"{tmp_path.name}_{{table}}")
    python = wheel.install(tmp_path / "venv", "base", "production")
    installed = Installed(python, conf, {**team.environment, "KEDRO_ENV": "production"})
    reader = {"MLFLOW_TRACKING_USERNAME": "reader", "MLFLOW_TRACKING_PASSWORD": "a long password"}
    team.servers.tracking._create_users({"reader": "a long password"})

    assert f"rows to {team.environment['CHURN_DATA_ROOT']}/01_raw/simulated_customers.csv" in installed.run(
        first, "--pipelines", "simulation"
    )
    trained = installed.run(first, "--pipelines", "training")
    packaged = installed.run(second, "--pipelines", "packaging")
    refused = installed._replace(variables={**installed.variables, **reader}).run(first, "promote", "simulated", code=1)
    promoted = installed.run(first, "promote", "simulated")

    assert "only a user with the role 'promoter'" in refused
    assert "Traceback (" not in refused
    assert f"Version 1 of {tmp_path.name}_simulated is now the champion" in promoted
    assert f"MLflow shows this run at {team.environment['MLFLOW_TRACKING_URI']}/#/experiments/" in trained
    assert trained.count("View run") == 0
    assert f"  {team.environment['MLFLOW_TRACKING_URI']} " in trained.partition("Look next:")[2]
    assert "WARNING" not in trained + packaged
    assert files(first) == set()
    assert files(second) == {"bentos"}
    assert_serves(installed, second)


def assert_serves(installed: Installed, folder: Path) -> None:
    """Serve the Bento of a folder from its environment, and check the probabilities of its own sample."""
    bundle = folder / "bundle"
    [bento] = (folder / "bentos").glob("*.bento")
    with tarfile.open(bento) as archive:
        archive.extractall(bundle, filter="data")
    sample = json.loads((bundle / "src/bundle/sample.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in installed.environment.items() if not name.startswith("CHURN_")}
    variables = {**kept, "CHURN_SERVING_KEYS": LINE, "BENTOML_HOME": str(folder / "bentos/store")}
    with serving(folder, variables, service="churn_simulated:latest", python=installed.python) as running:
        answer = httpx.post(
            f"{running.url}/predict",
            json={"customers": sample["customers"]},
            headers={"Authorization": f"Bearer {KEY}"},
        )
    assert answer.status_code == 200, answer.text
    given = [prediction["churn_probability"] for prediction in answer.json()["predictions"]]
    assert given == pytest.approx(sample["churn_probabilities"])


# ---- what the wheel carries, and the locks of its extras -------------------------------------------------------------


def test_the_wheel_carries_every_project_file_that_the_configuration_names() -> None:
    conf = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "conf").rglob("*.yml"))
    named = set(re.findall(r"\$\{project_file:([^}]+)\}", conf))
    carried = (ROOT / "setup.py").read_text(encoding="utf-8")

    assert named
    assert {name for name in named if f'"{name}"' not in carried} == set()


def locked(file: Path) -> dict[str, set[str]]:
    """The version of each package in a lock, or its versions by platform and Python."""
    found: dict[str, set[str]] = {}
    for name, pin in re.findall(r"(?m)^([a-z0-9._-]+)==([^\\]+?) ?\\$", file.read_text(encoding="utf-8")):
        found.setdefault(name, set()).add(pin.split(" ")[0])
    return found


def test_every_extra_has_its_part_of_the_lock() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    base, everything = locked(LOCKS / "base.txt"), locked(ROOT / "requirements" / "requirements.lock")
    assert {file.stem for file in LOCKS.glob("*.txt")} == {"base", *extras} - {"serving"}

    for file in LOCKS.glob("*.txt"):
        part = locked(file)
        assert part, file
        assert {name: pin for name, pin in part.items() if not pin <= everything.get(name, pin)} == {}, file
        if file.stem in ("base", "boosters", "production"):
            assert part.keys() <= everything.keys(), file
        if file.stem != "base":
            assert not part.keys() & base.keys(), file
    service = locked(ROOT / "requirements" / "serving.txt")
    assert {name for name, pin in service.items() if not pin <= everything.get(name, set())} == set()
