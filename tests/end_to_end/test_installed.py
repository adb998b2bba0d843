"""The project without a checkout: a wheel and a packed configuration, in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from tests.conftest import ROOT, _switched_off, quick_parameters

from churn_pipeline.hooks import next_steps

LOCKS = ROOT / "requirements" / "extras"
SAMPLE = ("simulated_customers.csv", "simulated_truth.csv")


class Installed(NamedTuple):
    """An installed package and the archive of its configuration."""

    python: Path
    conf: Path

    def run(self, folder: Path, *words: str) -> str:
        """Run the package in a folder, and return what it printed."""
        left_out = ("MLFLOW_TRACKING_URI", "KEDRO_ENV", "KEDRO_LOGGING_CONFIG", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        ended = subprocess.run(
            [self.python, "-m", "churn_pipeline", *words],
            cwd=folder,
            env=environment | {"CHURN_CONF_SOURCE": str(self.conf)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout
        return ended.stdout


def pack(folder: Path) -> Path:
    """Pack the configuration as `kedro package` does, with the parameters of a quick training."""
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    for name, block in quick_parameters("logistic").items():
        content = {**_switched_off(block), **block} if name == "candidates" else block
        (folder / "conf" / "local" / f"parameters_{name}.yml").write_text(
            yaml.safe_dump({name: content}), encoding="utf-8"
        )
    return Path(shutil.make_archive(str(folder / "packed"), "gztar", folder, "conf"))


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
def test_a_wheel_without_extras_simulates_trains_and_packages_in_an_empty_folder(tmp_path: Path) -> None:
    uv, environment = ROOT / ".venv" / "bin" / "uv", tmp_path / "venv"
    quiet = ("--quiet", "--python", str(environment))
    build = (
        "--quiet",
        "--wheel",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        str(tmp_path / "dist"),
    )
    # A copy, because setuptools leaves its own folders beside pyproject.toml.
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "checkout"], check=True)
    subprocess.run([uv, "build", *build, tmp_path / "checkout"], check=True)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    lock = ("--no-deps", "--require-hashes", "--requirement", LOCKS / "base.txt")
    subprocess.run([uv, "pip", "install", *quiet, *lock], check=True)
    subprocess.run([uv, "pip", "install", *quiet, "--no-deps", *(tmp_path / "dist").glob("*.whl")], check=True)
    folder = tmp_path / "empty"
    folder.mkdir()
    installed = Installed(environment / "bin" / "python", pack(tmp_path))

    installed.run(folder, "--pipelines", "simulation")
    for name in SAMPLE:
        assert (folder / "data/01_raw" / name).read_bytes() == (ROOT / "data/01_raw" / name).read_bytes()
    trained = installed.run(folder, "--pipelines", "training")
    installed.run(folder, "--pipelines", "packaging")
    promoted = installed.run(folder, "promote", "simulated")

    git = ["git", "-C", tmp_path / "checkout", "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True)
    assert {record["commit"] for record in records(folder)} == {commit.stdout.strip()}
    assert {record["dirty"] for record in records(folder)} == {False}
    assert (folder / "bentos/churn_simulated.bento").is_file()
    assert files(folder) == {"bentos", "data", "mlruns"}
    assert f"mlflow ui --backend-store-uri sqlite:///{folder}/mlruns/mlflow.db" in trained
    assert "kedro mlflow ui" not in trained
    assert "champion" in promoted


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
