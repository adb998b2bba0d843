"""Who may say what a client's address is."""

import os
from pathlib import Path

import httpx
import pytest
from tests.serving.running import serving
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from churn_pipeline.serving.keys import make_key
from churn_pipeline.serving.proxies import VARIABLE, trust_proxies
from churn_pipeline.serving.settings import Settings, SettingsError

LINE = make_key("crm")[1]


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.1", True),
        ("2001:db8::5", True),
        ("11.1.2.3", False),
        ("::ffff:11.1.2.3", False),
        ("192.0.2.2", False),
        ("2001:db9::5", False),
        ("127.0.0.1", False),
        ("unix:", False),
    ],
)
def test_only_trusted_proxies_report_an_address(peer: str, is_trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "*")
    trust_proxies(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"])
    assert (peer in ProxyHeadersMiddleware(None, os.environ[VARIABLE]).trusted_hosts) is is_trusted  # type: ignore[arg-type]


def test_by_default_nobody_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "*")
    trust_proxies(())
    trusted = ProxyHeadersMiddleware(None, os.environ[VARIABLE]).trusted_hosts  # type: ignore[arg-type]
    assert not any(peer in trusted for peer in ("127.0.0.1", "::1", "10.0.0.1", "unix:"))


@pytest.mark.parametrize("proxies", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/8,all"])
def test_other_text_is_refused_by_its_position(proxies: str) -> None:
    environment = {"CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_TRUSTED_PROXIES": proxies}
    with pytest.raises(SettingsError, match=r"TRUSTED_PROXIES: entry [12] is not an address or network"):
        Settings.from_environment(environment)


def statuses_of(folder: Path, **settings: str) -> list[int]:
    """Statuses of requests without a key whose client reports another address each time."""
    environment = {"CHURN_SERVING_KEYS": LINE, "CHURN_SERVING_FAILURE_LIMIT": "3/minute", **settings}
    with serving(folder, environment) as running:
        return [
            httpx.post(f"{running.url}/predict", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status_code
            for number in range(6)
        ]


def test_a_client_cannot_choose_its_address(tmp_path: Path) -> None:
    assert statuses_of(tmp_path) == [401] * 3 + [429] * 3


def test_a_trusted_proxy_reports_its_clients_addresses(tmp_path: Path) -> None:
    assert statuses_of(tmp_path, CHURN_SERVING_TRUSTED_PROXIES="127.0.0.1") == [401] * 6
