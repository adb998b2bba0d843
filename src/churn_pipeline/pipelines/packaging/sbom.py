"""An image's contents as a CycloneDX bill of materials: the locked packages and the model.

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
    """Yield name, version and SHA-256 digests of each package in a lock for pip.

    Raises
    ------
    ValueError
        If a package lacks an exact version or a digest.
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
            raise ValueError(f"{requirement.name} lacks a version or a digest in the lock: run make lock")
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
        Timestamp of the document; a fixed one, so that the same model and lock give the same text.

    Returns
    -------
    str
        CycloneDX 1.6, as JSON.
    """
    # Kedro imports this module for every command, and these imports take 0.1 s.
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
    model_component = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model,
        version=version,
        bom_ref="model",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    service = Component(type=ComponentType.APPLICATION, name=f"{model}_service", version=version, bom_ref="service")
    bom = Bom(
        serial_number=uuid.uuid5(SPACE, f"{digest} {version} {lock}"),
        components=[model_component, *packages],
        metadata=BomMetaData(component=service, timestamp=created),
    )
    bom.register_dependency(service, [model_component, *packages])
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
