"""The image's bill of materials: its packages and its format."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

INSPECTED = {
    "Id": "sha256:" + "ab" * 32,
    "RepoTags": ["localhost/churn_simulated:latest"],
    "Created": "2026-01-31T10:11:12.123456789Z",
}
LISTED: dict[str, Any] = {
    "distribution": "debian",
    "release": "12",
    "interpreter": "3.11.2",
    "debian": [["libc6", "2.36-9+deb12u10", "arm64"], ["libstdc++6", "12.2.0-14", "arm64"]],
    "python": [["bentoml", "1.4.39"], ["typing_extensions", "4.15.0"]],
}


@pytest.fixture(scope="module")
def script(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("image_sbom")


def test_it_is_valid_and_lists_every_package_and_the_interpreter(script: ModuleType) -> None:
    written = script.image_bill(LISTED, INSPECTED)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written) is None
    bill = json.loads(written)
    assert {component["purl"] for component in bill["components"]} == {
        "pkg:generic/python@3.11.2",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=arm64&distro=debian-12",
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=arm64&distro=debian-12",
        "pkg:pypi/bentoml@1.4.39",
        "pkg:pypi/typing-extensions@4.15.0",
    }
    assert bill["metadata"]["component"]["version"] == INSPECTED["Id"]
    [image] = [each for each in bill["dependencies"] if each["ref"] == "image"]
    assert len(image["dependsOn"]) == 5


def test_the_same_image_gives_the_same_text(script: ModuleType) -> None:
    assert script.image_bill(LISTED, INSPECTED) == script.image_bill(LISTED, INSPECTED)


def test_the_listing_finds_the_packages_of_the_environment_in_which_it_runs(script: ModuleType) -> None:
    done = subprocess.run([sys.executable, "-c", script.LIST_PACKAGES], capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert ["bentoml", version("bentoml")] in listed["python"]
    assert set(listed) == set(LISTED)
