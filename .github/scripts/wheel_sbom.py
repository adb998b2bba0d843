"""What a wheel of this project needs, as a CycloneDX bill of materials: its packages as they are locked and installed here.

``python .github/scripts/wheel_sbom.py dist/churn_pipeline-….whl`` prints it; ``make dist`` calls it. The packages are found
from what the installed ones say that they need, from the project on; versions and digests are the lock's. The time of
writing is `SOURCE_DATE_EPOCH`, the commit's, so that the same commit gives the same text.

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
    """Each installed package that a project needs, by name, with those that it needs itself.

    Extras are followed where they are asked for; a need whose marker does not fit this Python is none.
    """
    found: dict[str, set[str]] = {}
    followed: set[tuple[str, str]] = set()
    waiting = [(_normal(project), "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in followed:
            continue
        followed.add((name, extra))
        needs = found.setdefault(name, set())
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needs.add(_normal(requirement.name))
                waiting += [(_normal(requirement.name), each) for each in ("", *requirement.extras)]
    return found


def wheel_bill(wheel: bytes, needs: Mapping[str, set[str]], lock: str, created: datetime) -> str:
    """Write the bill of materials.

    Parameters
    ----------
    wheel
        The wheel's bytes.
    needs
        What :func:`needed_packages` found of the project.
    lock
        Where the digests of those packages are written.
    created
        Stands for the time of writing.

    Raises
    ------
    ValueError
        When a package is installed in a version that the lock does not hold.
    """
    digests = {(_normal(name), version): values for name, version, values in locked_packages(lock)}
    made = _component(PROJECT, [hashlib.sha256(wheel).hexdigest()])
    components = {_normal(PROJECT): made}
    for name in sorted(needs.keys() - components.keys()):
        version = distribution(name).version
        if (name, version) not in digests:
            raise ValueError(f"{name} {version} is installed, but not in {LOCK.relative_to(ROOT)}: make setup")
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


def _normal(name: str) -> str:
    """A package's one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Print the bill of materials of the wheel that is named."""
    [_, wheel] = sys.argv
    lock = LOCK.read_text(encoding="utf-8")
    created = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), tz=UTC)
    sys.stdout.write(wheel_bill(Path(wheel).read_bytes(), needed_packages(PROJECT), lock, created))


if __name__ == "__main__":
    main()
