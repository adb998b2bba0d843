"""The image's health check, run as in the image, against running services."""

import os
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.serving.running import ROOT, serving

CHECK = ROOT / "src/churn_pipeline/serving/healthcheck.py"
OFF = {"CHURN_SERVING_AUTHENTICATION": "off", "CHURN_SERVING_DRAIN_SECONDS": "0"}


def check(file: Path | None) -> tuple[int, str]:
    """Run the health check; return its exit code and its error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHURN_")}
    if file is not None:
        environment["CHURN_SERVING_ADDRESS_FILE"] = str(file)
    command = [sys.executable, "-I", str(CHECK)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of ``bentoml serve`` with a self-signed certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    subject = ["-subj", "/CN=churn.example.com", "-days", "1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return ["--ssl-certfile", certificate, "--ssl-keyfile", key]


@pytest.mark.parametrize("with_tls", [False, True])
def test_it_finds_the_service_at_any_port_with_and_without_tls(tmp_path: Path, tls: list[str], with_tls: bool) -> None:
    file = tmp_path / "address"
    settings = {**OFF, "CHURN_SERVING_ADDRESS_FILE": str(file)}
    with serving(tmp_path, settings, *(tls if with_tls else [])) as running:
        assert check(file) == (0, "")
        assert file.read_text() == f"{running.url}\n"
    code, problem = check(file)
    assert code == 1
    assert "refused" in problem


class Handler(BaseHTTPRequestHandler):
    """Answers that the service is not ready."""

    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.mark.parametrize(("required", "code"), [(False, 1), (True, 0)])
def test_a_required_client_certificate_shows_that_the_service_runs(
    tmp_path: Path, tls: list[str], required: bool, code: int
) -> None:
    certificate, key = tls[1], tls[3]
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_NONE
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "address").write_text(f"https://127.0.0.1:{server.server_port}\n")
        assert check(tmp_path / "address")[0] == code
        server.shutdown()


def test_it_fails_if_the_service_has_not_written_its_address(tmp_path: Path) -> None:
    for file in (None, tmp_path / "missing"):
        code, problem = check(file)
        assert code == 1
        assert "The address of the service cannot be read" in problem
