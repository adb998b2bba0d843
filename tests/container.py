"""Start the image of a Bento as in production, and test it.

``python -m tests.container ENGINE IMAGE BUNDLE`` starts the image with a read-only root file system, without capabilities and
only on loopback. ``make container-test`` runs this.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx

from churn_pipeline.serving.keys import make_key
from tests.smoke import check_service

TRAINING_MODULES = ("kedro", "mlflow", "pandas", "sklearn", "jupyterlab", "pip")
READY_SECONDS = 60
MAX_BYTES = 350_000_000  # above the base image
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
# By default, podman makes more folders writable than docker.
RESTRICTED_BY = {"podman": (*RESTRICTED, "--read-only-tmpfs=false")}

PROBE = """
import importlib.util, json, os, sys
found = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
written = []
for folder in ("/", "/app", "/app/bento/src/bundle", "/home", "/var/tmp"):
    try:
        open(os.path.join(folder, "written"), "w").close()
        written.append(folder)
    except OSError:
        pass
print(json.dumps({"user": os.getuid(), "group": os.getgid(), "modules": found, "written": written}))
"""


class Engine:
    """The command line of docker or podman."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *words: str) -> str:
        """Run a command and return its output."""
        done = subprocess.run([self.name, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{self.name} {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()


def wait_until_ready(url: str) -> float:
    """Wait until a service is ready; return the seconds."""
    begin = time.monotonic()
    while time.monotonic() - begin < READY_SECONDS:
        try:
            if httpx.get(f"{url}/readyz").status_code == httpx.codes.OK:
                return time.monotonic() - begin
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"The service was not ready after {READY_SECONDS} s")


def check_container(engine: Engine, container: str) -> None:
    """Check that it is unprivileged, can write nowhere, contains no training packages, and passes its health check."""
    probe = json.loads(engine("exec", container, "/app/bin/python", "-c", PROBE, *TRAINING_MODULES))
    assert probe["user"] > 0, "it runs as root"
    assert probe["group"] > 0, "it runs in root's group"
    assert probe["modules"] == [], f"it contains {probe['modules']}"
    assert probe["written"] == [], f"it can write to {probe['written']}"
    if engine.name == "podman":  # podman schedules health checks only with systemd
        engine("healthcheck", "run", container)
    else:
        until = time.monotonic() + READY_SECONDS
        while engine("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
            assert time.monotonic() < until, "its health check does not pass"
            time.sleep(1)


def report_size(engine: Engine, image: str) -> None:
    """Print the size of the image, and check the size that it adds to its base."""
    size = int(engine("image", "inspect", "--format", "{{.Size}}", image))
    base = engine("image", "inspect", "--format", '{{index .Config.Labels "churn.base_image"}}', image)
    above = size - int(engine("image", "inspect", "--format", "{{.Size}}", base))
    assert above <= MAX_BYTES, f"it is {above / 1e6:.0f} MB above its base, {base}"
    print(f"ok  {size / 1e6:.0f} MB, {above / 1e6:.0f} MB above its base, {base}")


def main(name: str, image: str, bundle: str) -> int:
    """Start the image, test it and stop it."""
    engine, (key, line) = Engine(name), make_key("smoke")
    container = engine(
        "run",
        "--detach",
        *RESTRICTED_BY.get(name, RESTRICTED),
        "--publish=127.0.0.1::3000",
        f"--env=CHURN_SERVING_KEYS={line}",
        image,
    )
    try:
        url = f"http://{engine('port', container, '3000').splitlines()[0]}"
        print(f"ok  ready after {wait_until_ready(url):.1f} s, read-only and without capabilities")
        for passed in check_service(url, key, Path(bundle)):
            print(f"ok  {passed}")
        check_container(engine, container)
        print("ok  not root, file system read-only, no training packages, healthy")
        report_size(engine, image)
        begin = time.monotonic()
        engine("stop", "--time", "30", container)
        code = engine("inspect", "--format", "{{.State.ExitCode}}", container)
        assert code == "0", f"exit code {code}"
        print(f"ok  stopped on request after {time.monotonic() - begin:.1f} s")
    except AssertionError as error:
        logs = subprocess.run([name, "logs", container], capture_output=True, text=True, check=False)
        print(f"FAILED  {error}\n{logs.stdout}{logs.stderr}")
        return 1
    finally:
        engine("rm", "--force", container)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
