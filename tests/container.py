"""Start the image of a Bento as in production, and test it.

``python -m tests.container ENGINE IMAGE BUNDLE`` starts the image with a read-only root file system, without capabilities and
only on loopback. ``make container-test`` runs this.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import httpx

from churn_pipeline.serving.keys import make_key
from tests.smoke import check_service

TRAINING_MODULES = ("kedro", "mlflow", "pandas", "sklearn", "jupyterlab", "pip")
READY_SECONDS = 120
REPLACED_SECONDS = 30
STOPPED_SECONDS = 20  # the request time limit is 10 s
UNREAD_REQUESTS = 2_000
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

WORKERS = """
import json, os, pathlib, signal, sys
words = {int(file.parent.name): file.read_bytes().split(b"\\0") for file in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
workers = [process for process, line in words.items() if b"_bentoml_impl.worker.service" in line]
if sys.argv[1:] == ["kill"]:
    os.kill(workers[0], signal.SIGKILL)
    workers = workers[:1]
print(json.dumps(workers))
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


def wait_for(condition: Callable[[], bool], seconds: float, failure: str) -> float:
    """Wait until a condition holds; return the seconds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + seconds, f"{failure} after {seconds:g} s"
        time.sleep(0.1)
    return time.monotonic() - begin


def is_ready(url: str) -> bool:
    """Whether a service answers that it is ready."""
    try:
        return httpx.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_until_healthy(engine: Engine, container: str) -> float:
    """Wait until the image's health check passes; return the seconds."""

    def is_healthy() -> bool:
        if engine.name == "podman":  # podman schedules health checks only with systemd
            command = [engine.name, "healthcheck", "run", container]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        return engine("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy"

    return wait_for(is_healthy, READY_SECONDS, "the health check does not pass")


def check_container(engine: Engine, container: str) -> None:
    """Check that it is unprivileged, can write nowhere, contains no training packages, and passes its health check."""
    probe = json.loads(engine("exec", container, "/app/bin/python", "-c", PROBE, *TRAINING_MODULES))
    assert probe["user"] > 0, "it runs as root"
    assert probe["group"] > 0, "it runs in root's group"
    assert probe["modules"] == [], f"it contains {probe['modules']}"
    assert probe["written"] == [], f"it can write to {probe['written']}"
    wait_until_healthy(engine, container)


def check_replacement(engine: Engine, container: str, url: str) -> float:
    """Kill one of two workers, and check that another replaces it; return the seconds."""

    def workers(*words: str) -> set[int]:
        return set(json.loads(engine("exec", container, "/app/bin/python", "-c", WORKERS, *words)))

    [killed] = workers("kill")
    seconds = wait_for(lambda: len(workers() - {killed}) == 2, REPLACED_SECONDS, "the killed worker is not replaced")
    wait_for(lambda: is_ready(url), READY_SECONDS, "the service is not ready")
    return seconds


def check_stop(engine: Engine, container: str, url: str) -> float:
    """Stop the container while a client reads none of its answers; return the seconds."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = url.removeprefix("http://").rpartition(":")
        client.connect((host, int(port)))
        client.sendall(b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * UNREAD_REQUESTS)
        begin = time.monotonic()
        engine("stop", "--time", "60", container)
        seconds = time.monotonic() - begin
    code = engine("inspect", "--format", "{{.State.ExitCode}}", container)
    assert code == "0", f"exit code {code}"
    assert seconds < STOPPED_SECONDS, f"it stopped after {seconds:.1f} s"
    return seconds


def report_size(engine: Engine, image: str) -> None:
    """Print the size of the image, and check the size that it adds to its base."""
    size = int(engine("image", "inspect", "--format", "{{.Size}}", image))
    base = engine("image", "inspect", "--format", '{{index .Config.Labels "churn.base_image"}}', image)
    if subprocess.run([engine.name, "image", "inspect", base], capture_output=True, check=False).returncode:
        engine("pull", base)  # docker builds on a base image without storing it under its name
    above = size - int(engine("image", "inspect", "--format", "{{.Size}}", base))
    assert above <= MAX_BYTES, f"it is {above / 1e6:.0f} MB above its base, {base}"
    print(f"ok  {size / 1e6:.0f} MB, {above / 1e6:.0f} MB above its base, {base}")


@contextmanager
def running(engine: Engine, image: str, *options: str, arguments: tuple[str, ...] = ()) -> Iterator[str]:
    """Start a container and remove it at the end; print its logs if a check fails."""
    restricted = RESTRICTED_BY.get(engine.name, RESTRICTED)
    container = engine("run", "--detach", *restricted, *options, image, *arguments)
    try:
        yield container
    except AssertionError:
        logs = subprocess.run([engine.name, "logs", container], capture_output=True, text=True, check=False)
        print(f"{logs.stdout}{logs.stderr}")
        raise
    finally:
        engine("rm", "--force", container)


def check_image(engine: Engine, image: str, bundle: Path) -> Iterator[str]:
    """Check the image with two workers; yield a description of each passed check."""
    key, line = make_key("smoke")
    settings = (f"--env=CHURN_SERVING_KEYS={line}", "--env=CHURN_SERVING_WORKERS=2")
    with running(engine, image, "--publish=127.0.0.1::3000", *settings) as container:
        url = f"http://{engine('port', container, '3000').splitlines()[0]}"
        seconds = wait_for(lambda: is_ready(url), READY_SECONDS, "the service is not ready")
        yield f"ready after {seconds:.1f} s, read-only and without capabilities"
        yield from check_service(url, key, bundle)
        check_container(engine, container)
        yield "not root, file system read-only, no training packages, healthy"
        yield f"a killed worker is replaced after {check_replacement(engine, container, url):.1f} s"
        yield f"stopped on request after {check_stop(engine, container, url):.1f} s, with 2,000 unread answers"


def check_tls(engine: Engine, image: str) -> Iterator[str]:
    """Check that the health check passes at another port and with TLS."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "certificate.pem")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=churn"]
        subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
        for path in (Path(folder), key, certificate):
            path.chmod(0o755)  # the container's user must be able to read them
        options = (f"--volume={folder}:/tls:ro", "--env=CHURN_SERVING_AUTHENTICATION=off", "--env=BENTOML_PORT=4000")
        tls = ("--ssl-certfile", "/tls/certificate.pem", "--ssl-keyfile", "/tls/key.pem")
        with running(engine, image, *options, arguments=tls) as container:
            yield f"healthy after {wait_until_healthy(engine, container):.1f} s at port 4000 with TLS"


def main(name: str, image: str, bundle: str) -> int:
    """Test the image, and return the exit code."""
    engine = Engine(name)
    try:
        for passed in chain(check_image(engine, image, Path(bundle)), check_tls(engine, image)):
            print(f"ok  {passed}")
        report_size(engine, image)
    except AssertionError as error:
        print(f"FAILED  {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
