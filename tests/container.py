"""The image of a Bento, started as it is meant to run, and asked what a service must answer.

``python -m tests.container ENGINE IMAGE BUNDLE`` starts it with a read-only root file system, without capabilities and on
loopback alone; ``make container-test`` calls it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx

from churn_pipeline.serving.keys import make_key
from tests.smoke import check_service

AT_HOME = ("kedro", "mlflow", "pandas", "sklearn", "jupyterlab", "pip")
READY_SECONDS = 60
LARGEST = 350_000_000
LOCKED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
# Podman makes more folders writable than docker does, unless told not to.
LOCKED_BY = {"podman": (*LOCKED, "--read-only-tmpfs=false")}

UNABLE = """
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
    """Docker or podman, by its command line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *words: str) -> str:
        """What a command prints."""
        done = subprocess.run([self.name, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{self.name} {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()


def wait_until_ready(url: str) -> float:
    """Seconds until a service answers that it is ready."""
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
    """It runs as nobody, can write nowhere, holds nothing of what trains a model, and says that it is well."""
    able = json.loads(engine("exec", container, "/app/bin/python", "-c", UNABLE, *AT_HOME))
    assert able["user"] > 0, "it runs as root"
    assert able["group"] > 0, "it runs in root's group"
    assert able["modules"] == [], f"it holds {able['modules']}"
    assert able["written"] == [], f"it can write to {able['written']}"
    if engine.name == "podman":  # without systemd, podman runs no health check by itself
        engine("healthcheck", "run", container)
    else:
        until = time.monotonic() + READY_SECONDS
        while engine("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
            assert time.monotonic() < until, "its health check does not say that it is well"
            time.sleep(1)


def report_size(engine: Engine, image: str) -> None:
    """Print the image's size, and hold what it adds to its base to a limit."""
    size = int(engine("image", "inspect", "--format", "{{.Size}}", image))
    base = engine("image", "inspect", "--format", '{{index .Config.Labels "churn.base_image"}}', image)
    above = size - int(engine("image", "inspect", "--format", "{{.Size}}", base))
    assert above <= LARGEST, f"it is {above / 1e6:.0f} MB above its base, {base}"
    print(f"ok  {size / 1e6:.0f} MB, {above / 1e6:.0f} MB above its base, {base}")


def main(name: str, image: str, bundle: str) -> int:
    """Start the image, ask it, and stop it again."""
    engine, (key, line) = Engine(name), make_key("smoke")
    container = engine(
        "run",
        "--detach",
        *LOCKED_BY.get(name, LOCKED),
        "--publish=127.0.0.1::3000",
        f"--env=CHURN_SERVING_KEYS={line}",
        image,
    )
    try:
        url = f"http://{engine('port', container, '3000').splitlines()[0]}"
        print(f"ok  ready after {wait_until_ready(url):.1f} s, read-only and without capabilities")
        for said in check_service(url, key, Path(bundle)):
            print(f"ok  {said}")
        check_container(engine, container)
        print("ok  not root, nothing written, nothing of training inside, healthy")
        report_size(engine, image)
        begin = time.monotonic()
        engine("stop", "--time", "30", container)
        code = engine("inspect", "--format", "{{.State.ExitCode}}", container)
        assert code == "0", f"it ended with {code}"
        print(f"ok  ended when it was asked to, after {time.monotonic() - begin:.1f} s")
    except AssertionError as error:
        logs = subprocess.run([name, "logs", container], capture_output=True, text=True, check=False)
        print(f"FAILED  {error}\n{logs.stdout}{logs.stderr}")
        return 1
    finally:
        engine("rm", "--force", container)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
