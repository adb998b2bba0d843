"""The dependencies of a wheel of this project as a CycloneDX bill of materials.

``python .github/scripts/wheel_sbom.py dist/churn_pipeline-….whl`` prints it; ``make dist`` calls it. The metadata of installed
packages gives the dependencies, the lock their versions and digests. The timestamp is `SOURCE_DATE_EPOCH`, the commit's
time, so the same commit gives the same text.

References
----------
OWASP CycloneDX, ECMA-424: https://cyclonedx.org/specification/overview/.
"""

import hashlib
import os
import re
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import distribution
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement

from churn_pipeline.pipelines.packaging.sbom import locked_packages

PROJECT = "churn-pipeline"
ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements/requirements.lock"
SPACE = uuid.UUID("0b5f2a2e-8f3c-5d0e-9a55-6f2c1d7e4b21")


def needed_packages(project: str) -> dict[str, set[str]]:
    """Return every installed package that a project needs, by name, with its own dependencies.

    Requested extras are included; dependencies whose marker excludes this Python are not.
    """
    found: dict[str, set[str]] = {}
    followed: set[tuple[str, str]] = set()
    waiting = [(normal_name(project), "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in followed:
            continue
        followed.add((name, extra))
        needs = found.setdefault(name, set())
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needs.add(normal_name(requirement.name))
                waiting += [(normal_name(requirement.name), each) for each in ("", *requirement.extras)]
    return found


def wheel_bill(wheel: bytes, needs: Mapping[str, set[str]], lock: str, created: datetime) -> str:
    """Write the bill of materials.

    Parameters
    ----------
    wheel
        The wheel's bytes.
    needs
        The project's packages, from :func:`needed_packages`.
    lock
        The lock with the digests of those packages.
    created
        Timestamp of the document.

    Raises
    ------
    ValueError
        If a package's installed version is not in the lock.
    """
    digests = {(normal_name(name), version): values for name, version, values in locked_packages(lock)}
    made = _component(PROJECT, [hashlib.sha256(wheel).hexdigest()])
    components = {normal_name(PROJECT): made}
    for name in sorted(needs.keys() - components.keys()):
        version = distribution(name).version
        if (name, version) not in digests:
            raise ValueError(f"{name} {version} is installed but not in {LOCK.relative_to(ROOT)}: run make setup")
        components[name] = _component(name, digests[name, version])
    bom = Bom(
        serial_number=uuid.uuid5(SPACE, f"{made.version} {hashlib.sha256(wheel).hexdigest()} {lock}"),
        components=[component for component in components.values() if component is not made],
        metadata=BomMetaData(component=made, timestamp=created),
    )
    for name, component in components.items():
        bom.register_dependency(component, [components[need] for need in sorted(needs[name])])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)


def _component(name: str, digests: list[str]) -> Component:
    version = distribution(name).version
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        purl=PackageURL("pypi", None, name, version),
        bom_ref=f"pkg:pypi/{name}@{version}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests],
    )


def normal_name(name: str) -> str:
    """Return a package's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Print the bill of materials of the wheel in the argument."""
    [_, wheel] = sys.argv
    lock = LOCK.read_text(encoding="utf-8")
    created = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), tz=UTC)
    sys.stdout.write(wheel_bill(Path(wheel).read_bytes(), needed_packages(PROJECT), lock, created))


if __name__ == "__main__":
    main()
