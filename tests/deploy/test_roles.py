"""Who may promote: MLflow's server with the login of `deploy/tracking_server`, asked by REST as its clients ask it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import mlflow
import pytest
import requests
from deploy.local_servers.servers import Servers
from deploy.local_servers.tracking import WORKSPACE
from tests.conftest import Project

from churn_pipeline.datasets import RegisteredModelDataset
from churn_pipeline.datasets.registered_model import RegisteredVersionDataset
from churn_pipeline.promotion import find_alias

pytestmark = pytest.mark.slow
PASSWORD = "a long password of this test"
MODELS, VERSIONS = "registered-models", "model-versions"
ALIAS = f"{MODELS}/alias"
Call = Callable[..., requests.Response]


@pytest.fixture(scope="module")
def users(servers: Servers) -> dict[str, str]:
    """The names of a reader, a trainer and a promoter, who have what the how-to gives them."""
    tracking, word = servers.tracking, uuid.uuid4().hex[:8]
    names = {part: f"{part}_{word}" for part in ("reader", "trainer", "promoter")}
    tracking._create_users(dict.fromkeys(names.values(), PASSWORD))
    tracking._give_role([names["promoter"]])
    made = tracking._call("POST", "roles/create", {"workspace": WORKSPACE, "name": f"trainer_{word}"}, 3).json()["role"]
    for kind in ("experiment", "registered_model"):
        grant = {"role_id": made["id"], "resource_type": kind, "resource_pattern": "*", "permission": "EDIT"}
        tracking._call("POST", "roles/permissions/add", grant, 3).raise_for_status()
    assigned = tracking._call("POST", "roles/assign", {"username": names["trainer"], "role_id": made["id"]}, 3)
    assigned.raise_for_status()
    return names


@pytest.fixture
def call(servers: Servers, users: dict[str, str]) -> Call:
    """Sends one REST request as a user."""

    def send(user: str, method: str, what: str, api: str = "api", **body: Any) -> requests.Response:
        url = f"{servers.tracking.url}/{api}/2.0/mlflow/{what}"
        return requests.request(method, url, json=body, auth=(users[user], PASSWORD), timeout=60)

    return send


@pytest.fixture
def model(call: Call) -> str:
    """A registered model that the trainer created: versions 1 and 2, with the challenger on 2."""
    name = f"churn_{uuid.uuid4().hex[:8]}"
    assert call("trainer", "POST", f"{MODELS}/create", name=name).ok
    for _ in range(2):
        assert call("trainer", "POST", f"{VERSIONS}/create", name=name, source="s3://models/m").ok
    assert call("trainer", "POST", ALIAS, name=name, alias="challenger", version="2").ok
    return name


@pytest.mark.parametrize("alias", ["champion", "anchor", "Champion", "chämpion"])
@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_a_trainer_cannot_promote(alias: str, api: str, call: Call, model: str) -> None:
    refused = call("trainer", "POST", ALIAS, api=api, name=model, alias=alias, version="1")

    assert refused.status_code == 403
    assert refused.json()["error_code"] == "PERMISSION_DENIED"
    assert "only a user with the role 'promoter'" in refused.json()["message"]
    aliases = call("reader", "GET", f"{MODELS}/get?name={model}").json()["registered_model"]["aliases"]
    assert aliases == [{"alias": "challenger", "version": "2"}]


def test_a_body_that_only_mlflow_understands_is_refused_too(
    servers: Servers, users: dict[str, str], model: str
) -> None:
    body = json.dumps(json.dumps({"name": model, "alias": "champion", "version": "1"}))
    url = f"{servers.tracking.url}/api/2.0/mlflow/{ALIAS}"
    kind = {"Content-Type": "application/json"}
    refused = requests.post(url, data=body, headers=kind, auth=(users["trainer"], PASSWORD), timeout=60)
    assert refused.status_code == 403


def test_a_promoter_promotes_and_a_trainer_cannot_undo_it(call: Call, model: str) -> None:
    for alias in ("champion", "anchor"):
        assert call("promoter", "POST", ALIAS, name=model, alias=alias, version="1").ok

    for method, what, body in (
        ("DELETE", ALIAS, {"alias": "champion"}),
        ("DELETE", f"{VERSIONS}/delete", {"version": "1"}),
        ("DELETE", f"{MODELS}/delete", {}),
        ("POST", f"{MODELS}/rename", {"new_name": f"{model}_old"}),
    ):
        assert call("trainer", method, what, name=model, **body).status_code == 403, what
    # What holds no protected alias is the trainer's.
    assert call("trainer", "DELETE", f"{VERSIONS}/delete", name=model, version="2").ok
    champion = call("reader", "GET", f"{MODELS}/alias?name={model}&alias=champion").json()["model_version"]
    assert champion["version"] == "1"


def test_a_reader_reads_and_changes_nothing(call: Call, model: str) -> None:
    assert call("reader", "GET", f"{MODELS}/get?name={model}").ok
    assert call("reader", "POST", ALIAS, name=model, alias="challenger", version="1").status_code == 403
    assert call("reader", "POST", f"{VERSIONS}/create", name=model, source="s3://models/m").status_code == 403


def test_no_user_gives_themself_the_role(servers: Servers, call: Call, users: dict[str, str]) -> None:
    roles = servers.tracking._call("GET", "roles/list", {"workspace": WORKSPACE}, 3).json()["roles"]
    [promoter] = [role for role in roles if role["name"] == "promoter"]
    url = f"{servers.tracking.url}/api/3.0/mlflow/roles/assign"
    body = {"username": users["trainer"], "role_id": promoter["id"]}
    assert requests.post(url, json=body, auth=(users["trainer"], PASSWORD), timeout=60).status_code == 403


def test_a_trainer_finds_no_champion_of_a_model_that_nobody_has_registered(
    servers: Servers, users: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.tracking.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", users["trainer"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    mlflow.set_tracking_uri(servers.tracking.url)
    # MLflow exports both addresses; monkeypatch removes them again.
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", servers.tracking.url)

    assert RegisteredModelDataset("churn_nowhere", "champion", optional=True).load() is None
    assert RegisteredVersionDataset("churn_nowhere", optional=True).load() is None
    assert find_alias(mlflow.MlflowClient(), "churn_nowhere", "champion") is None


def test_the_command_of_a_trainer_ends_with_one_message(
    servers: Servers, users: dict[str, str], model: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.tracking.url)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", users["trainer"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    table = model.removeprefix("churn_")

    ended = project.kedro("promote", table, "--force")
    assert ended.code == 1
    assert f"refuses the login of '{users['trainer']}'" in ended.output

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    ended = project.kedro("promote", table, "--force")
    assert ended.code == 1
    assert "refuses the request" in ended.output
    assert "only a user with the role 'promoter'" in ended.output
    assert "Traceback" not in ended.output

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", users["promoter"])
    ended = project.kedro("promote", table, "--force")
    assert ended.code == 0, ended.output
    assert mlflow.MlflowClient().get_model_version_by_alias(model, "champion").version == "2"
