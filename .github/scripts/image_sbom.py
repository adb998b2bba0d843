"""All packages of an image as a CycloneDX bill of materials: those of its base image and those of the service.

``python .github/scripts/image_sbom.py ENGINE IMAGE`` prints it; ``make container-sbom`` calls it. The packages are listed in
the image, so the bill of materials shows what is installed, not what a lock says. Debian's packages come from dpkg, Python's
from their metadata.

References
----------
OWASP CycloneDX, ECMA-424: https://cyclonedx.org/specification/overview/.
Package URLs: https://github.com/package-url/purl-spec.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

SPACE = uuid.UUID("c9a51b0c-6d0f-5a43-8f3d-0d6e0a5c6a77")
LIST_PACKAGES = """
import glob, json, platform, subprocess, sys
from importlib.metadata import distributions
try:
    release = platform.freedesktop_os_release()
except OSError:
    release = {}
try:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}\\t${Package}\\t${Version}\\t${Architecture}\\n"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
except OSError:
    lines = []
debian = [line.split("\\t")[1:] for line in lines if line.startswith("ii")]
folders = [*sys.path, *glob.glob(f"{sys.base_prefix}/lib/python3*/site-packages")]  # the service's and the base image's
python = sorted({(one.metadata["Name"], one.version) for one in distributions(path=folders)})
distribution = {"distribution": release.get("ID", ""), "release": release.get("VERSION_ID", "")}
print(json.dumps({**distribution, "interpreter": platform.python_version(), "debian": debian, "python": python}))
"""


def run(*command: str) -> str:
    """Run a command and return its output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def packages_in(engine: str, image: str) -> dict[str, Any]:
    """List the packages that are installed in an image."""
    command = [
        "run",
        "--rm",
        "--network=none",
        "--read-only",
        "--entrypoint=/app/bin/python",
        image,
        "-c",
        LIST_PACKAGES,
    ]
    listed: dict[str, Any] = json.loads(run(engine, *command))
    return listed


def components_of(listed: Mapping[str, Any]) -> Iterator[Component]:
    """Yield a component for each package, and one for the Python interpreter."""
    distribution = listed["distribution"]
    interpreter = PackageURL("generic", None, "python", listed["interpreter"])
    yield _component(interpreter, ComponentType.PLATFORM)
    for name, version, architecture in listed["debian"]:
        qualifiers = {"arch": architecture, "distro": f"{distribution}-{listed['release']}"}
        yield _component(PackageURL("deb", distribution, name, version, qualifiers))
    for name, version in listed["python"]:
        yield _component(PackageURL("pypi", None, name, version))


def _component(purl: PackageURL, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    return Component(type=kind, name=purl.name, version=purl.version, purl=purl, bom_ref=purl.to_string())


def image_bill(listed: Mapping[str, Any], inspected: Mapping[str, Any]) -> str:
    """Write the bill of materials.

    Parameters
    ----------
    listed
        The packages, from :func:`packages_in`.
    inspected
        What the engine's ``image inspect`` shows of the image.
    """
    name, digest = inspected["RepoTags"][0], inspected["Id"].removeprefix("sha256:")
    image = Component(type=ComponentType.CONTAINER, name=name, version=f"sha256:{digest}", bom_ref="image")
    components = list(components_of(listed))
    bom = Bom(
        serial_number=uuid.uuid5(SPACE, digest),
        components=components,
        metadata=BomMetaData(component=image, timestamp=datetime.fromisoformat(inspected["Created"])),
    )
    bom.register_dependency(image, components)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)


def main() -> None:
    """Print the bill of materials of the image in the arguments."""
    [_, engine, image] = sys.argv
    [inspected] = json.loads(run(engine, "image", "inspect", image))
    sys.stdout.write(image_bill(packages_in(engine, image), inspected) + "\n")


if __name__ == "__main__":
    main()
