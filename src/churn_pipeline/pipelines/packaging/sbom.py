"""What an image holds, as a CycloneDX bill of materials: the locked packages, and the model as one of them.

References
----------
OWASP CycloneDX, ECMA-424: https://cyclonedx.org/specification/overview/.
"""

import uuid
from collections.abc import Iterator
from datetime import datetime

from packaging.requirements import Requirement

SPACE = uuid.UUID("7a1d0f7c-5c0e-5c52-9d0a-3f3d2c2b9a10")


def locked_packages(lock: str) -> Iterator[tuple[str, str, list[str]]]:
    """Name, version and SHA-256 digests of each package in a lock that pip reads.

    Raises
    ------
    ValueError
        When a package has no one version, or no digest: the lock is none.
    """
    joined = lock.replace("\\\n", " ")
    for line in joined.splitlines():
        words = line.split("#", maxsplit=1)[0].split()
        if not words:
            continue
        digests = [word.removeprefix("--hash=sha256:") for word in words if word.startswith("--hash=")]
        requirement = Requirement(" ".join(word for word in words if not word.startswith("--")))
        [pin] = requirement.specifier or [None]
        if pin is None or pin.operator != "==" or not digests:
            raise ValueError(f"{requirement.name} has no version and digest in the lock: make lock")
        yield requirement.name, pin.version, digests


def bill_of_materials(lock: str, model: str, version: str, digest: str, created: datetime) -> str:
    """Write the bill of materials of a model's service.

    Parameters
    ----------
    lock
        The packages of the image, with versions and digests.
    model, version, digest
        The model's name, its registered version, and the SHA-256 of its file.
    created
        Stands for the time of writing: the same model and lock give the same text.

    Returns
    -------
    str
        CycloneDX 1.6, as JSON.
    """
    # Kedro imports this file for every command, and these packages take a tenth of a second.
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion
    from packageurl import PackageURL

    packages = [
        Component(
            name=name,
            version=pin,
            purl=PackageURL("pypi", None, name, pin),
            bom_ref=f"pkg:pypi/{name}@{pin}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in digests],
        )
        for name, pin, digests in locked_packages(lock)
    ]
    shipped = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model,
        version=version,
        bom_ref="model",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    service = Component(type=ComponentType.APPLICATION, name=f"{model}_service", version=version, bom_ref="service")
    bom = Bom(
        serial_number=uuid.uuid5(SPACE, f"{digest} {version} {lock}"),
        components=[shipped, *packages],
        metadata=BomMetaData(component=service, timestamp=created),
    )
    bom.register_dependency(service, [shipped, *packages])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
