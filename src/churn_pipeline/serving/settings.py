"""All settings of a running service, read from the environment once, at start.

Every variable begins with ``CHURN_SERVING_``. Kubernetes sets variables of its own for a service by the name of
churn-serving; those are passed over, and any other unknown name is refused.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import limits
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticUndefined

from churn_pipeline.serving.keys import read_keys

PREFIX = "CHURN_SERVING_"
LIKE_OURS = re.compile(r"CHURN_SERV", re.IGNORECASE)
OF_KUBERNETES = re.compile(r"CHURN_SERV\w*_(HOST|PORT(_\w+)?)")
NO_KEYS = (
    "no API key is set: make one with 'python -m churn_pipeline.serving.keys NAME' and store the line that it prints in "
    f"{PREFIX}KEYS, or in a file that {PREFIX}KEYS_FILE names. {PREFIX}AUTHENTICATION=off lets everyone in"
)


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


List = Annotated[tuple[str, ...], BeforeValidator(_split)]
Access = Literal["open", "key", "off"]


class SettingsError(ValueError):
    """Settings that no service can run with. The message lists every problem, to be shown as it is, and no value."""


class Settings(BaseModel):
    """The settings. A field ``rate_limit`` is the variable ``CHURN_SERVING_RATE_LIMIT``; lists are comma separated."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    bundle: Path | None = Field(None, description="Folder of the bundle; without it, the one inside the Bento.")

    workers: int = Field(1, ge=1, le=256, description="Processes that answer.")

    authentication: Literal["on", "off"] = Field(
        "on", description="`off` lets everyone in, at any rate: the limits are per key."
    )
    keys: List = Field((), description="API keys as `name:hash`; they stay valid while the service runs.")
    keys_file: Path | None = Field(
        None, description="File of API keys, one `name:hash` a line; read again within a second when it changes."
    )
    metrics: Access = Field("open", description="Who may read `/metrics`: `open`, `key`, or `off` for nobody.")
    pages: Access = Field(
        "open",
        description="Who may read `/`, `/docs` and the OpenAPI document: `open`, `off`, or `key`, which no browser sends.",
    )
    cors_origins: List = Field((), description="Origins whose pages may call the service from a browser; `*` for all.")

    rate_limit: str = Field("6000/minute", description="Requests per key name, such as `100/second`.")
    failure_limit: str = Field("60/minute", description="Refused keys per client address.")
    rate_limit_store: str = Field(
        "async+memory://",
        description="Where requests are counted. In memory each worker counts for itself; `async+redis://host:port` counts "
        "for all workers, and needs the package coredis in the image.",
    )

    max_rows: int = Field(10_000, ge=1, description="Customers in a request to `/predict`.")
    max_explained_rows: int = Field(100, ge=1, description="Customers in a request to `/explain`.")
    max_body_bytes: int = Field(16_000_000, ge=1, description="Size of a request's body, in bytes.")
    request_seconds: float = Field(
        10.0, gt=0, allow_inf_nan=False, description="Time for a whole request, its body included, in seconds."
    )
    concurrency: int = Field(32, ge=1, description="Requests in work at once, per worker.")
    queue: int = Field(
        64, ge=0, description="Requests that may wait for their turn, per worker; more are answered 503."
    )

    drain_seconds: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Time for which a service that is told to end goes on serving, no longer ready, in seconds.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged; requests are `info`, those of probes `debug`."
    )

    prediction_log: Path | None = Field(None, description="Folder of the prediction log; without it, none is written.")
    prediction_log_share: float = Field(1.0, ge=0, le=1, description="Share of requests that are logged, 0 to 1.")
    prediction_log_bytes: int = Field(
        100_000_000, ge=1, description="Size at which a file is followed by a new one, in bytes."
    )
    prediction_log_days: float = Field(
        30.0, gt=0, allow_inf_nan=False, description="Age at which a file is deleted, in days."
    )
    prediction_log_id_key: SecretStr | None = Field(
        None, description="Key of the customer ids' HMAC-SHA256, 16 characters or more; without it, no id is logged."
    )

    @field_validator("keys")
    @classmethod
    def _keys_are_stored_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := read_keys(keys)[1]:
            raise ValueError(f"entry {wrong[0]} is no name:hash")
        return keys

    @field_validator("keys_file")
    @classmethod
    def _some_key_is_set(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        held = bool(info.data.get("keys", ("refused above",)))
        if file is not None:
            try:
                keys, wrong = read_keys(file.read_text(encoding="utf-8").splitlines())
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"the file cannot be read ({type(error).__name__})") from None
            if wrong:
                raise ValueError(f"line {wrong[0]} of the file is no name:hash")
            held = held or bool(keys)
        if not held and info.data.get("authentication") == "on":
            raise ValueError(NO_KEYS)
        return file

    @field_validator("rate_limit", "failure_limit")
    @classmethod
    def _limits_can_be_read(cls, limit: str) -> str:
        try:
            readable = limits.parse(limit).amount > 0
        except ValueError:
            readable = False
        if not readable:
            raise ValueError("must be a number per time, such as 600/minute")
        return limit

    @field_validator("rate_limit_store")
    @classmethod
    def _store_can_be_used(cls, store: str) -> str:
        if not store.startswith("async+"):
            raise ValueError("must be an asynchronous store of the library limits, such as async+redis://host:6379")
        try:
            storage_from_string(store)
        except ConfigurationError:
            raise ValueError("is no store that the library limits knows, or its package is not installed") from None
        return store

    @field_validator("prediction_log_id_key")
    @classmethod
    def _id_key_is_long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 16:
            raise ValueError("must have 16 characters or more")
        return key

    @property
    def rate_limit_is_shared(self) -> bool:
        """Whether all workers count together."""
        return not self.rate_limit_store.startswith("async+memory")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings. A variable that is empty counts as not set.

        Raises
        ------
        SettingsError
            With one line for every problem.
        """
        names = {PREFIX + field.upper(): field for field in cls.model_fields}
        problems = [_unknown(name, names) for name in sorted(environment) if _is_unknown(name, names)]
        given = {field: environment[name] for name, field in names.items() if environment.get(name)}
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            for problem in error.errors(include_input=False, include_url=False):
                name = PREFIX + str(problem["loc"][0]).upper()
                text = problem["msg"].removeprefix("Value error, ")
                problems.append(text if text == NO_KEYS else f"{name}: {text}")
        if problems:
            raise SettingsError("The service's settings cannot be used: " + "; ".join(problems))
        return settings


def _is_unknown(name: str, names: Mapping[str, str]) -> bool:
    return bool(LIKE_OURS.match(name)) and name not in names and not OF_KUBERNETES.fullmatch(name)


def _unknown(name: str, names: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.5)
    return f"{name} is no setting" + (f"; {near[0]} is" if near else "")


def settings_table() -> str:
    """Every setting with its default and its meaning, as a Markdown table."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for field, info in Settings.model_fields.items():
        default = "" if info.default in (None, (), PydanticUndefined) else f"`{info.default}`"
        rows.append(f"| `{PREFIX}{field.upper()}` | {default} | {info.description} |")
    return "\n".join(rows)
