"""Reads the values of a settings model from environment variables and from files of secrets.

A secret is a field of the type ``SecretStr``. The variable ``…X_FILE`` names the file that holds the value of ``…X``.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, SecretStr

FROM_FILE = "_FILE"
SIMILAR_NAME = re.compile(r"CHURN_SERV", re.IGNORECASE)
KUBERNETES_NAME = re.compile(r"CHURN_SERV\w*_(HOST|PORT(_\w+)?)")
RENAMED = {"CHURN_SERVING_SHIPMENT": "CHURN_SERVING_BUNDLE"}


def secret_fields(model: type[BaseModel]) -> frozenset[str]:
    """Names of the fields that hold secrets."""
    fields = model.model_fields.items()
    return frozenset(name for name, info in fields if SecretStr in (info.annotation, *get_args(info.annotation)))


def read_environment(
    model: type[BaseModel], prefix: str, environment: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Read the value of each field that is set. An empty variable counts as not set.

    Parameters
    ----------
    model
        The settings. The variable of a field is the prefix and the field's name in capitals.
    prefix
        Beginning of every variable.
    environment
        The variables.

    Returns
    -------
    values : dict
        Values by field.
    problems : list of str
        One text, without values, for each unknown variable and each secret that cannot be read.
    """
    names = {prefix + field.upper(): field for field in model.model_fields}
    secrets = {name for name, field in names.items() if field in secret_fields(model)}
    known = [*names, *(name + FROM_FILE for name in secrets)]
    problems = [_unknown(name, known) for name in sorted(environment) if _is_unknown(name, known)]
    values = {field: environment[name] for name, field in names.items() if environment.get(name)}
    for name in sorted(secrets):
        if environment.get(name + FROM_FILE):
            try:
                values[names[name]] = _read_secret(name, environment)
            except ValueError as error:
                problems.append(str(error))
    return values, problems


def _read_secret(name: str, environment: Mapping[str, str]) -> str:
    """Read a secret from its file, without the line break at the end."""
    if environment.get(name):
        raise ValueError(f"{name} and {name}{FROM_FILE} are both set: set only one of them")
    try:
        value = Path(environment[name + FROM_FILE]).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}{FROM_FILE}: the file cannot be read ({type(error).__name__})") from None
    if not value:
        raise ValueError(f"{name}{FROM_FILE}: the file is empty")
    return value


def _is_unknown(name: str, known: Collection[str]) -> bool:
    return bool(SIMILAR_NAME.match(name)) and name not in known and not KUBERNETES_NAME.fullmatch(name)


def _unknown(name: str, known: Collection[str]) -> str:
    near = [RENAMED[name]] if name in RENAMED else difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
    return f"{name} is not a setting" + (f": use {near[0]}" if near else "")
