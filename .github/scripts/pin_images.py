"""Pin the base image of the service's image to the digest that its registry reports.

``python .github/scripts/pin_images.py conf/base/parameters_packaging.yml``; ``make pin-images`` calls it. The digest is that of
the image's index, so it holds for every platform. If no registry answers, the file stays as it is.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

SETTING = re.compile(r"^(?P<key> *base_image: *)(?P<name>[^\s@]+)(@sha256:[0-9a-f]{64})?(?P<rest>.*)$", re.MULTILINE)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TOOLS = {
    "docker": ("buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", "{name}"),
    "skopeo": ("inspect", "--format", "{{.Digest}}", "docker://{name}"),
}


def registry_digest(name: str) -> str:
    """Ask an image's registry for its digest, with docker or skopeo.

    Raises
    ------
    LookupError
        If neither is installed, or the registry does not answer with a digest.
    """
    problems = []
    for tool, words in TOOLS.items():
        if shutil.which(tool) is None:
            problems.append(f"{tool} is not installed")
            continue
        command = [tool, *(word.format(name=name) if "{name}" in word else word for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
        if done.returncode == 0 and DIGEST.fullmatch(done.stdout.strip()):
            return done.stdout.strip()
        [answer, *_] = [*(done.stderr or done.stdout).strip().splitlines(), "no answer"]
        problems.append(f"{tool}: {answer}")
    raise LookupError(f"The digest of {name} could not be read: {'; '.join(problems)}")


def pin_images(text: str) -> str:
    """Return a YAML text with a digest in each setting ``base_image``; everything else stays as it is.

    Raises
    ------
    LookupError
        If there is no such setting, or a digest cannot be read.
    """
    if not SETTING.search(text):
        raise LookupError("There is no setting base_image")
    return SETTING.sub(
        lambda found: f"{found['key']}{found['name']}@{registry_digest(found['name'])}{found['rest']}", text
    )


def main() -> int:
    """Pin the images in the file in the argument, and return the exit code."""
    file = Path(sys.argv[1])
    text = file.read_text(encoding="utf-8")
    try:
        pinned = pin_images(text)
    except LookupError as error:
        sys.stderr.write(f"{error}. {file} is unchanged.\n")
        return 1
    file.write_text(pinned, encoding="utf-8")
    sys.stdout.write("\n".join(found.group().strip() for found in SETTING.finditer(pinned)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
