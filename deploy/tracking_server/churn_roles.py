"""Login of an MLflow tracking server on which only promoters may move the aliases ``champion`` and ``anchor``.

MLflow's own permissions end at the registered model: who may move one alias may move all. This file is the
``authorization_function`` of MLflow's app ``basic-auth``. It needs nothing but MLflow, and lies on the server's PYTHONPATH.
Administrators and users with the role `ROLE` are promoters. ``CHURN_PROTECTED_MODELS`` is a pattern of the names of
registered models to protect; by default all are.
"""

from __future__ import annotations

import os
import unicodedata
from fnmatch import fnmatchcase

from flask import Response, jsonify, request
from mlflow.exceptions import MlflowException
from mlflow.protos.model_registry_pb2 import (
    DeleteModelVersion,
    DeleteRegisteredModel,
    DeleteRegisteredModelAlias,
    RenameRegisteredModel,
    SetRegisteredModelAlias,
)
from mlflow.server import auth
from mlflow.server.handlers import _get_model_registry_store, _get_request_message
from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from werkzeug.datastructures import Authorization

ROLE = "promoter"
ALIASES = {"champion", "anchor"}
MODELS = os.environ.get("CHURN_PROTECTED_MODELS", "*")
# Requests that move or remove an alias, by method and the end of their path
REQUESTS = {
    ("POST", "/mlflow/registered-models/alias"): SetRegisteredModelAlias,
    ("DELETE", "/mlflow/registered-models/alias"): DeleteRegisteredModelAlias,
    ("POST", "/mlflow/registered-models/rename"): RenameRegisteredModel,
    ("DELETE", "/mlflow/registered-models/delete"): DeleteRegisteredModel,
    ("DELETE", "/mlflow/model-versions/delete"): DeleteModelVersion,
}


def authenticate() -> Authorization | Response:
    """Log a user in by name and password, and refuse requests for promoters from anyone else."""
    login = auth.authenticate_request_basic_auth()
    if isinstance(login, Response) or not _is_for_promoters() or _is_promoter(str(login.username)):
        return login
    refusal = f"only a user with the role '{ROLE}' may move or remove the aliases {' and '.join(sorted(ALIASES))}"
    answer: Response = jsonify({"error_code": "PERMISSION_DENIED", "message": refusal})
    answer.status_code = 403
    return answer


def _is_for_promoters() -> bool:
    rule = request.url_rule.rule if request.url_rule else ""
    kind = next(
        (kind for (method, end), kind in REQUESTS.items() if request.method == method and rule.endswith(end)), None
    )
    if kind is None:
        return False
    # MLflow's own parser: another one might read another alias from the same request than the handler does.
    message = _get_request_message(kind())
    names = [message.name, *([message.new_name] if kind is RenameRegisteredModel else [])]
    if not any(fnmatchcase(_plain(name), _plain(MODELS)) for name in names):
        return False
    if kind in (SetRegisteredModelAlias, DeleteRegisteredModelAlias):
        return _plain(message.alias) in ALIASES
    versions = _protected_versions(message.name)
    return message.version in versions if kind is DeleteModelVersion else bool(versions)


def _protected_versions(model: str) -> set[str]:
    """The versions of a model that have a protected alias."""
    try:
        aliases = _get_model_registry_store().get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return set()
    return {str(version) for alias, version in aliases.items() if _plain(alias) in ALIASES}


def _is_promoter(username: str) -> bool:
    user = auth.store.get_user(username)
    workspace = get_request_workspace() or DEFAULT_WORKSPACE_NAME
    return user.is_admin or any(
        role.name == ROLE for role in auth.store.list_user_roles_for_workspace(user.id, workspace)
    )


def _plain(name: str) -> str:
    """The name without case and accents, because MySQL compares names so."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().casefold()
