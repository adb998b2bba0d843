"""The check of the tracking server: each way in which a server cannot be used is one sentence with its fix."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509

from churn_pipeline import tracking_server
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.tracking_server import check_servers
from tests.certificates import Authority
from tests.conftest import Project

USER, PASSWORD = "ann", "correct horse"


class Server(ThreadingHTTPServer):
    """An HTTP server that answers like an MLflow server, or otherwise if a test says so."""

    daemon_threads = True
    status, body, version, location, login = 200, b'{"experiments": []}', "3.17.2", "", ""
    silent = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about clients that reject the certificate."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        if self.server.silent.is_set():
            self.server.silent.wait()
            threading.Event().wait(60)
        if self.path == "/version":
            self._answer(200, self.server.version.encode())
        elif self.server.login and self.headers.get("Authorization") != self.server.login:
            self._answer(401, b"You are not authenticated.")
        elif self.server.location and not self.path.startswith("/moved"):
            self._answer(301, b"")
        else:
            self._answer(self.server.status, self.server.body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 301:
            self.send_header("Location", self.server.location + self.path)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "REQUESTS_CA_BUNDLE"),
        *("CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts a server, with TLS if it gets a certificate."""
    servers = []

    def _start(certificate: Path | None = None, clients: Path | None = None) -> Server:
        server = Server(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if clients is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(clients)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield _start
    for server in servers:
        server.shutdown()
        server.server_close()


def address_of(server: Server, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.server_address[1]}"


def problem_with(address: str, registry: str | None = None) -> str:
    with pytest.raises(ProjectError) as raised:
        check_servers(address, registry)
    return str(raised.value)


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_a_private_certificate_authority_is_trusted_as_mlflow_trusts_it(
    variable: str, start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    address = address_of(start(authority.sign("server")), "https")

    assert "does not trust: set MLFLOW_TRACKING_SERVER_CERT_PATH" in problem_with(address)
    monkeypatch.setenv(variable, str(other.file))
    assert "does not trust" in problem_with(address)
    monkeypatch.setenv(variable, str(authority.file))
    check_servers(address)


def test_without_verification_any_certificate_is_accepted_unless_a_bundle_is_named_too(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    address = address_of(start(authority.sign("server")), "https")
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    check_servers(address)

    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
    assert "only one of these environment variables may be set" in problem_with(address)


def test_a_certificate_for_another_name_or_an_expired_one_is_named(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))

    elsewhere = start(authority.sign("elsewhere", x509.DNSName("mlflow.example.com")))
    assert "certificate for another name" in problem_with(address_of(elsewhere, "https"))
    expired = start(authority.sign("expired", days=-1))
    assert "certificate that has expired" in problem_with(address_of(expired, "https"))


def test_a_client_certificate_is_sent_if_it_is_named(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
    address = address_of(start(authority.sign("server"), clients=authority.file), "https")

    assert "MLFLOW_TRACKING_CLIENT_CERT_PATH" in problem_with(address)
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority.sign("client")))
    check_servers(address)


def test_a_certificate_file_that_does_not_exist_is_named(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address_of(start(Authority(tmp_path).sign("server")), "https")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(tmp_path / "missing.pem"))
    assert "missing.pem" in problem_with(address)


def test_tls_with_a_server_that_has_none(start: Callable[..., Server]) -> None:
    assert "does not use TLS: write http://" in problem_with(address_of(start(), "https"))


def test_the_login_is_read_where_mlflow_reads_it_and_never_shown(
    start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    server.login = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    address = address_of(server)

    assert "requires a login: set MLFLOW_TRACKING_USERNAME" in problem_with(address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    message = problem_with(address)
    assert "refuses the login of 'ann': correct" in message
    assert "wrong" not in message
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    check_servers(address)

    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    credentials = tmp_path / ".mlflow" / "credentials"
    credentials.parent.mkdir()
    credentials.write_text(f"[mlflow]\nmlflow_tracking_username = {USER}\nmlflow_tracking_password = {PASSWORD}\n")
    check_servers(address)


def test_a_token_is_sent(start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    server.login = "Bearer a-token"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    check_servers(address_of(server))


def test_a_login_in_the_address_is_not_shown(start: Callable[..., Server]) -> None:
    server = start()
    server.status = 503
    message = problem_with(address_of(server).replace("://", "://ann:secret@"))
    assert "secret" not in message
    assert f"{address_of(server)}:\n  - answers with error 503" in message


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, b"Permission denied", r"refuses the request \(Permission denied\)"),
        (429, b"", "answers with error 429"),
        (502, b"", "answers with error 502"),
        (404, b"", r"is no MLflow tracking server \(status 404\)"),
        (200, b"<html>Welcome</html>", r"is no MLflow tracking server \(status 200\)"),
    ],
)
def test_an_answer_other_than_a_tracking_servers_is_named(
    status: int, body: bytes, expected: str, start: Callable[..., Server]
) -> None:
    server = start()
    server.status, server.body = status, body
    with pytest.raises(ProjectError, match=expected):
        check_servers(address_of(server))


def test_a_server_that_is_too_old_is_named_and_an_unknown_version_is_accepted(start: Callable[..., Server]) -> None:
    server = start()
    server.version = "2.22.1"
    assert "runs MLflow 2.22.1: upgrade it to 3.0" in problem_with(address_of(server))
    server.version = "<html>"
    check_servers(address_of(server))


def test_a_redirect_is_named_because_mlflow_would_lose_what_it_sends(start: Callable[..., Server]) -> None:
    server = start()
    server.location = f"{address_of(server)}/moved"
    assert f"redirects to {address_of(server)}/moved: use that address" in problem_with(address_of(server))


def test_a_server_that_does_not_answer_in_time_is_named(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    server.silent.set()
    monkeypatch.setattr(tracking_server, "SECONDS", 0.3)
    try:
        assert "does not answer in time" in problem_with(address_of(server))
    finally:
        server.silent.clear()


def test_a_name_that_cannot_be_resolved_and_a_proxy_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "has a name that cannot be resolved" in problem_with("https://mlflow.invalid")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "behind a proxy that does not answer" in problem_with("https://mlflow.example.com")


def test_a_registry_at_another_address_is_checked_too(start: Callable[..., Server]) -> None:
    tracking, registry = start(), start()
    registry.status = 503
    message = problem_with(address_of(tracking), address_of(registry))
    assert message.startswith(f"The MLflow model registry {address_of(registry)}:\n  - answers with error 503")


def test_a_database_needs_its_driver_and_other_addresses_are_left_to_mlflow() -> None:
    assert "needs the package MySQLdb" in problem_with("mysql://ann:secret@db.example.com/runs")
    for address in ("databricks", "databricks://team", "file:///runs", "sqlite:////runs.db", "runs", None):
        check_servers(address)


def test_only_runs_that_are_recorded_need_the_server(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("CHURN_DATA_ROOT", "data")

        ended = project.kedro("run", "--pipelines", "simulation", "--env", "production")
        assert ended.code == 0, ended.output

        ended = project.kedro("promote", "simulated")
        assert ended.code == 1
        assert "does not answer" in ended.output
        assert "Traceback" not in ended.output
