"""The bill of materials: its packages, its format, and that it is reproducible."""

import json
from datetime import UTC, datetime

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tests.conftest import ROOT

from churn_pipeline.pipelines.packaging.sbom import bill_of_materials, locked_packages

LOCK = (ROOT / "requirements" / "serving.txt").read_text(encoding="utf-8")
AT_HOME = {"kedro", "kedro-datasets", "kedro-mlflow", "mlflow", "mlflow-skinny", "pandas", "scikit-learn", "jupyterlab"}


def written(version: str = "3") -> str:
    return bill_of_materials(LOCK, "churn_customers", version, "ab" * 32, datetime(2026, 1, 31, tzinfo=UTC))


def test_it_is_cyclonedx() -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written()) is None


def test_it_names_every_locked_package_with_its_digests_and_the_model() -> None:
    components = {made["name"]: made for made in json.loads(written())["components"]}
    locked = {name: (version, digests) for name, version, digests in locked_packages(LOCK)}
    model = components.pop("churn_customers")
    assert model["type"] == "machine-learning-model"
    assert model["version"] == "3"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert components.keys() == locked.keys()
    for name, (version, digests) in locked.items():
        assert components[name]["purl"] == f"pkg:pypi/{name}@{version}"
        assert {made["content"] for made in components[name]["hashes"]} == set(digests)


def test_it_is_the_same_each_time_and_another_for_another_model() -> None:
    assert written() == written()
    assert json.loads(written())["serialNumber"] != json.loads(written("4"))["serialNumber"]


def test_the_image_contains_only_the_services_packages() -> None:
    names = {name for name, _, _ in locked_packages(LOCK)}
    assert {"bentoml", "onnxruntime", "pydantic", "starlette", "limits"} <= names
    assert not names & AT_HOME


def test_the_image_has_the_versions_that_are_tested() -> None:
    tested = (ROOT / "requirements" / "requirements.lock").read_text(encoding="utf-8")
    versions = {(name, version) for name, version, _ in locked_packages(tested)}
    assert {(name, version) for name, version, _ in locked_packages(LOCK)} <= versions


@pytest.mark.parametrize("line", ["numpy>=2 --hash=sha256:aa", "numpy", "numpy==2.4.6"])
def test_a_line_without_version_or_digest_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="numpy lacks a version or a digest"):
        list(locked_packages(line))
