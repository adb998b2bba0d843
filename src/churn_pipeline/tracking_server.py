"""The team's MLflow tracking server: whether it can be used, and what its errors mean.

TLS, login and proxies are MLflow's own: every request goes through MLflow's client.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import requests
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds, read_mlflow_creds
from mlflow.utils.rest_utils import http_request
from packaging.version import InvalidVersion, Version
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from churn_pipeline.contract.errors import ProjectError

SECONDS = 10
# Training logs models through an interface that servers have had since this version.
OLDEST_VERSION = Version("3.0")
SEARCH = "/api/2.0/mlflow/experiments/search"
LOGIN = (
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or the section [mlflow] of "
    "~/.mlflow/credentials"
)
TRUST = "set MLFLOW_TRACKING_SERVER_CERT_PATH (or REQUESTS_CA_BUNDLE) to the file of your certificate authority"
START = (
    "start it, correct MLFLOW_TRACKING_URI, or unset it (and leave out `--env production`) to record on this machine"
)
AGAIN = (
    "Repeat the command when it can be used again: finished trials of a search are stored, and an alias moves to a version "
    "only when the version is complete"
)


def check_servers(tracking: str | None, registry: str | None = None) -> None:
    """Check that runs and models can be recorded at these addresses; None is no address.

    A server is asked once, with MLflow's own login and TLS settings. A database needs its driver. Other addresses are
    left to MLflow.

    Raises
    ------
    ProjectError
        If a server cannot be used. The message says why and how to fix it.
    """
    for kind, address in (
        ("tracking server", tracking),
        ("model registry", registry if registry != tracking else None),
    ):
        if address and address.startswith(("http://", "https://")):
            _check_server(f"The MLflow {kind} {without_password(address)}", address)
        elif address and "://" in address:
            _check_driver(f"The MLflow {kind} {without_password(address)}", address)


def without_password(text: str) -> str:
    """Return the text without the user and password of any address in it.

    Examples
    --------
    >>> without_password("cannot reach https://ann:secret@mlflow.example.com/team")
    'cannot reach https://mlflow.example.com/team'
    """
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def explain(error: BaseException) -> str | None:
    """Return the message for an error that a server answered with or that kept it from answering; None for others."""
    if not isinstance(error, MlflowException):
        return None
    if is_unreachable(error):
        return f"The MLflow tracking server cannot be used:\n  - it {_failure(_cause(error))}\n  - {AGAIN}"
    if error.get_http_status_code() == HTTPStatus.UNAUTHORIZED:
        return f"The MLflow tracking server refuses the login:\n  - correct {LOGIN}"
    if error.get_http_status_code() == HTTPStatus.FORBIDDEN:
        reason = re.search(r"Response body: '(.*)'", error.message, re.DOTALL)
        text = without_password(reason[1] if reason else error.message)
        return f"The MLflow tracking server refuses the request:\n  - {text}: ask its administrator for the permission"
    return None


def is_unreachable(error: BaseException) -> bool:
    """Return whether MLflow's client got no usable answer, after its retries."""
    return isinstance(error, MlflowException) and isinstance(_cause(error), requests.RequestException)


@contextmanager
def single_attempt() -> Iterator[None]:
    """Let MLflow's client try each request once: a command that fails anyway must not wait again."""
    before = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get_raw()
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(0)
    try:
        yield
    finally:
        if before is None:
            MLFLOW_HTTP_REQUEST_MAX_RETRIES.unset()
        else:
            MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(before)


def _check_server(subject: str, address: str) -> None:
    answer = _ask(subject, address, SEARCH, "POST", json={"max_results": 1})
    problem = _refusal(answer)
    if problem is not None:
        raise ProjectError(subject, problem)
    version = _version(_ask(subject, address, "/version", "GET"))
    if version is not None and version < OLDEST_VERSION:
        raise ProjectError(
            subject,
            f"runs MLflow {version}: upgrade it to {OLDEST_VERSION} or later, older ones cannot register models",
        )


def _ask(subject: str, address: str, path: str, method: str, **body: Any) -> requests.Response:
    try:
        answer: requests.Response = http_request(
            get_default_host_creds(address), path, method, max_retries=0, timeout=SECONDS, raise_on_status=False, **body
        )
    except MlflowException as error:
        raise ProjectError(subject, _failure(_cause(error))) from None
    return answer


def _cause(error: MlflowException) -> BaseException:
    """What MLflow's client was handling when it raised the error; the error itself if there is nothing."""
    return error.__cause__ or error.__context__ or error


def _failure(error: BaseException) -> str:
    """Say why there is no answer, and how to fix it."""
    text = without_password(str(error))
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_failure(text)
    if isinstance(error, requests.exceptions.ProxyError):
        return (
            "is behind a proxy that does not answer: correct HTTPS_PROXY or HTTP_PROXY, or add the server to NO_PROXY"
        )
    if isinstance(error, requests.exceptions.Timeout) or "timed out" in text:
        return f"does not answer in time: {START}"
    if "Failed to resolve" in text:
        return (
            "has a name that cannot be resolved: correct MLFLOW_TRACKING_URI, or connect to the network that knows it"
        )
    if isinstance(error, requests.exceptions.RetryError):
        return "answers with errors: ask its administrator, or try again later"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"does not answer: {START}"
    # For example a certificate file that does not exist, or a login plugin that is not installed
    return f"cannot be asked: {text}"


def _tls_failure(text: str) -> str:
    if "alert" in text.lower() and "certificate" in text.lower():
        return "requires another client certificate: set MLFLOW_TRACKING_CLIENT_CERT_PATH to its file with the key"
    if "Hostname mismatch" in text or "IP address mismatch" in text:
        return "has a certificate for another name: use the name of the certificate in MLFLOW_TRACKING_URI"
    if "certificate has expired" in text:
        return "has a certificate that has expired: ask its administrator to renew it"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"has a certificate that this machine does not trust: {TRUST}"
    # TLS 1.3: a server may close the connection before the client reads why, as it does without a client certificate.
    if "EOF occurred" in text:
        return (
            "ends the TLS connection: if it requires a client certificate, set MLFLOW_TRACKING_CLIENT_CERT_PATH to its file "
            "with the key; otherwise ask its administrator"
        )
    if "WRONG_VERSION_NUMBER" in text:
        return "does not use TLS: write http:// in MLFLOW_TRACKING_URI, or the port that uses TLS"
    return f"cannot be reached by TLS: {text}"


def _refusal(answer: requests.Response) -> str | None:
    """Say what is wrong with an answer, and how to fix it; None for an answer as expected."""
    status = answer.status_code
    if status == HTTPStatus.UNAUTHORIZED:
        name = read_mlflow_creds().username
        return f"refuses the login of '{name}': correct {LOGIN}" if name else f"requires a login: set {LOGIN}"
    if status == HTTPStatus.FORBIDDEN:
        text = " ".join(answer.text.split())[:200]
        return f"refuses the request ({text}): ask its administrator for the permission to record runs"
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return f"answers with error {status}: ask its administrator, or try again later"
    if answer.history:
        return (
            f"redirects to {without_password(answer.url).removesuffix(SEARCH)}: use that address in MLFLOW_TRACKING_URI"
        )
    if status != HTTPStatus.OK or not _is_json(answer):
        return f"is no MLflow tracking server (status {status}): correct MLFLOW_TRACKING_URI; it ends before /api"
    return None


def _is_json(answer: requests.Response) -> bool:
    try:
        return isinstance(answer.json(), dict)
    except requests.JSONDecodeError:
        return False


def _version(answer: requests.Response) -> Version | None:
    """The server's version; None if it does not say."""
    try:
        return Version(answer.text.strip()) if answer.ok else None
    except InvalidVersion:
        return None


def _check_driver(subject: str, address: str) -> None:
    """Check that the driver of a database is installed; MLflow itself names only the missing module."""
    try:
        make_url(address).get_dialect().import_dbapi()
    except ArgumentError:
        return
    except ImportError as error:
        raise ProjectError(subject, f"needs the package {error.name}: install it") from None
