"""The wheel's bill of materials: its packages, its format, and that it is reproducible."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import requires, version
from types import ModuleType

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from tests.conftest import ROOT

LOCK = (ROOT / "requirements/requirements.lock").read_text(encoding="utf-8")
CREATED = datetime(2026, 1, 31, tzinfo=UTC)
FOR_DEVELOPERS = {"pytest", "ruff", "mypy", "zizmor", "hypothesis", "playwright"}


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("wheel_sbom")


@pytest.fixture(scope="module")
def needs(script: ModuleType) -> dict[str, set[str]]:
    return script.needed_packages("churn-pipeline")


@pytest.fixture(scope="module")
def written(needs: dict[str, set[str]], script: ModuleType) -> str:
    """The bill of materials of some wheel."""
    return script.wheel_bill(b"wheel", needs, LOCK, CREATED)


def test_it_lists_the_projects_dependencies_without_development_ones(needs) -> None:
    asked = [Requirement(text) for text in requires("churn-pipeline") or ()]
    direct = {each.name for each in asked if each.marker is None or each.marker.evaluate({"extra": ""})}

    assert needs["churn-pipeline"] == direct
    assert {"numpy", "omegaconf", "sqlalchemy"} <= needs.keys()  # needed by what is needed
    assert not FOR_DEVELOPERS & needs.keys()
    assert not {"catboost", "xgboost", "xgboost-cpu"} & needs.keys()  # an extra


def test_a_requested_extra_is_included(needs, script) -> None:
    asked = [Requirement(text) for name in needs for text in requires(name) or ()]
    fitting = [each for each in asked if each.extras and (each.marker is None or each.marker.evaluate({"extra": ""}))]

    assert fitting
    for requirement in fitting:
        for text in requires(requirement.name) or ():
            inner = Requirement(text)
            if inner.marker and any(inner.marker.evaluate({"extra": extra}) for extra in requirement.extras):
                assert script.normal_name(inner.name) in needs


def test_it_is_cyclonedx_with_every_package_its_version_and_the_locks_digests(needs, written) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written) is None
    bill = json.loads(written)
    assert bill["metadata"]["component"]["name"] == "churn-pipeline"
    made = {component["name"]: component for component in bill["components"]}
    assert made.keys() == needs.keys() - {"churn-pipeline"}
    assert made["pandas"]["version"] == version("pandas")
    assert all(f"--hash=sha256:{digest['content']}" in LOCK for one in made.values() for digest in one["hashes"])
    [project] = [one for one in bill["dependencies"] if one["ref"].startswith("pkg:pypi/churn-pipeline@")]
    assert len(project["dependsOn"]) == len(needs["churn-pipeline"])


def test_it_is_the_same_each_time_and_another_for_another_wheel(needs, script, written) -> None:
    assert script.wheel_bill(b"wheel", needs, LOCK, CREATED) == written
    assert json.loads(script.wheel_bill(b"other", needs, LOCK, CREATED))["serialNumber"] not in written


def test_a_version_that_is_not_locked_is_refused(needs, script) -> None:
    other = LOCK.replace(f"pandas=={version('pandas')}", "pandas==0.1")

    with pytest.raises(ValueError, match=r"pandas .* is installed but not in requirements/requirements.lock"):
        script.wheel_bill(b"wheel", needs, other, CREATED)


def test_the_script_runs_as_in_make_dist(tmp_path) -> None:
    wheel = tmp_path / "some.whl"
    wheel.write_bytes(b"wheel")
    words = [sys.executable, str(ROOT / ".github/scripts/wheel_sbom.py"), str(wheel)]
    environment = {"SOURCE_DATE_EPOCH": str(int(CREATED.timestamp()))}

    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)

    assert json.loads(done.stdout)["metadata"]["timestamp"] == CREATED.isoformat()
