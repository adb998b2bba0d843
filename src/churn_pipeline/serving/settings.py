"""All settings of the service, read from environment variables once, at start.

Every variable begins with ``CHURN_SERVING_``. Unknown names are refused, except the variables that Kubernetes sets by itself
for a service named churn-serving.
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
SIMILAR_NAME = re.compile(r"CHURN_SERV", re.IGNORECASE)
KUBERNETES_NAME = re.compile(r"CHURN_SERV\w*_(HOST|PORT(_\w+)?)")
RENAMED = {PREFIX + "SHIPMENT": PREFIX + "BUNDLE"}
NO_KEYS = (
    f"no API key is set: make one with 'python -m churn_pipeline.serving.keys NAME' and store the printed line in {PREFIX}KEYS "
    f"or in the file named by {PREFIX}KEYS_FILE. To serve without keys, set {PREFIX}AUTHENTICATION=off"
)


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
Access = Literal["open", "key", "off"]


class SettingsError(ValueError):
    """Invalid settings. The message lists every problem without values, so it can be shown unchanged."""


class Settings(BaseModel):
    """The settings. Field ``rate_limit`` is read from ``CHURN_SERVING_RATE_LIMIT``; lists are comma-separated."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    bundle: Path | None = Field(None, description="Folder of the bundle. Default: the bundle inside the Bento.")

    bundles: Path | None = Field(
        None,
        description="Folder of bundles, one sub-folder for each, instead of `BUNDLE`. Its file `current` names the served "
        "bundle, and `second` a second one. The files may change while the service runs.",
    )
    switch_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit for all workers to load a newly named bundle, in seconds; above it, all keep the old one.",
    )
    split_share: float = Field(
        0.0, ge=0, le=1, description="Share of customers that the second bundle answers for, from 0 to 1."
    )
    shadow: Literal["on", "off"] = Field(
        "off",
        description="`on`: the second bundle also scores the customers that the first one answers for. These predictions "
        "are counted and logged, not returned.",
    )

    workers: int = Field(1, ge=1, le=256, description="Number of worker processes.")

    authentication: Literal["on", "off"] = Field(
        "on", description="`off` accepts requests without a key. It also disables the rate limits, which count per key."
    )
    keys: CommaSeparated = Field(
        (), description="API keys as `name:hash`, comma-separated. They stay valid while the service runs."
    )
    keys_file: Path | None = Field(
        None, description="File of API keys, one `name:hash` per line. Changes take effect within a second."
    )
    metrics: Access = Field("open", description="Access to `/metrics`: `open`, `key` (with an API key) or `off`.")
    pages: Access = Field(
        "open",
        description="Access to `/`, `/docs` and the OpenAPI document: `open`, `key` (browsers send none) or `off`.",
    )
    cors_origins: CommaSeparated = Field(
        (), description="Origins whose pages may call the service from a browser, comma-separated; `*` allows all."
    )

    rate_limit: str = Field(
        "6000/minute", description="Maximum rate of requests per key name, such as `100/second`; above it: 429."
    )
    failure_limit: str = Field(
        "60/minute", description="Maximum rate of requests without a valid key per client address; above it: 429."
    )
    rate_limit_store: str = Field(
        "async+memory://",
        description="Store of the rate limits. In memory, each worker counts separately. `async+redis://host:port` counts all "
        "workers together and needs the package coredis in the image.",
    )

    max_rows: int = Field(
        10_000, ge=1, description="Maximum number of customers per request to `/predict`; above it: 413."
    )
    max_explained_rows: int = Field(
        100, ge=1, description="Maximum number of customers per request to `/explain`; above it: 413."
    )
    max_body_bytes: int = Field(
        16_000_000, ge=1, description="Maximum size of a request body, in bytes; above it: 413."
    )
    request_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit of a request including its body, in seconds; above it: 408, 503 or 504.",
    )
    concurrency: int = Field(
        32, ge=1, description="Maximum number of requests that a worker processes at once; others wait in its queue."
    )
    queue: int = Field(64, ge=0, description="Maximum number of requests that wait in a worker's queue; above it: 503.")

    drain_seconds: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that the service keeps serving after SIGTERM while its readiness check already fails.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged. Requests are logged as `info`, health checks as `debug`."
    )

    prediction_log: Path | None = Field(None, description="Folder of the prediction log. Default: no prediction log.")
    prediction_log_share: float = Field(
        1.0, ge=0, le=1, description="Share of requests in the prediction log, from 0 to 1."
    )
    prediction_log_bytes: int = Field(
        100_000_000, ge=1, description="Size at which a new prediction log file is started, in bytes."
    )
    prediction_log_days: float = Field(
        30.0, gt=0, allow_inf_nan=False, description="Age at which a prediction log file is deleted, in days."
    )
    prediction_log_id_key: SecretStr | None = Field(
        None,
        description="Secret for the HMAC-SHA256 of logged customer ids, at least 16 characters. Default: no ids are logged.",
    )

    @field_validator("bundles")
    @classmethod
    def _one_source_of_bundles(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder is not None and info.data.get("bundle") is not None:
            raise ValueError(f"{PREFIX}BUNDLE is set as well: set only one of them")
        return folder

    @field_validator("split_share", "shadow")
    @classmethod
    def _second_bundle_can_be_named(cls, value: float | str, info: ValidationInfo) -> float | str:
        if value not in (0.0, "off") and info.data.get("bundles") is None:
            raise ValueError(f"needs {PREFIX}BUNDLES, whose file `second` names the second bundle")
        return value

    @field_validator("keys")
    @classmethod
    def _keys_are_stored_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := read_keys(keys)[1]:
            raise ValueError(f"entry {wrong[0]} is not name:hash")
        return keys

    @field_validator("keys_file")
    @classmethod
    def _some_key_is_set(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        has_key = bool(info.data.get("keys", ("reported above",)))
        if file is not None:
            try:
                keys, wrong = read_keys(file.read_text(encoding="utf-8").splitlines())
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"the file cannot be read ({type(error).__name__})") from None
            if wrong:
                raise ValueError(f"line {wrong[0]} of the file is not name:hash")
            has_key = has_key or bool(keys)
        if not has_key and info.data.get("authentication") == "on":
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
            raise ValueError("must be a number per time unit, such as 600/minute")
        return limit

    @field_validator("rate_limit_store")
    @classmethod
    def _store_can_be_used(cls, store: str) -> str:
        if not store.startswith("async+"):
            raise ValueError("must be an asynchronous store of the library limits, such as async+redis://host:6379")
        try:
            storage_from_string(store)
        except ConfigurationError:
            raise ValueError(
                "unknown store, or its package is not installed. See the stores of the library limits"
            ) from None
        return store

    @field_validator("prediction_log_id_key")
    @classmethod
    def _id_key_is_long(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < 16:
            raise ValueError("must have at least 16 characters")
        return key

    @property
    def rate_limit_is_shared(self) -> bool:
        """Whether one limit counts the requests of all workers."""
        return not self.rate_limit_store.startswith("async+memory")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings. An empty variable counts as not set.

        Raises
        ------
        SettingsError
            If any setting is unknown or invalid; one message lists all problems.
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
            raise SettingsError("Invalid settings: " + "; ".join(problems))
        return settings


def _is_unknown(name: str, names: Mapping[str, str]) -> bool:
    return bool(SIMILAR_NAME.match(name)) and name not in names and not KUBERNETES_NAME.fullmatch(name)


def _unknown(name: str, names: Mapping[str, str]) -> str:
    near = [RENAMED[name]] if name in RENAMED else difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.5)
    return f"{name} is not a setting" + (f": use {near[0]}" if near else "")


def settings_table() -> str:
    """All settings with default and meaning, as a Markdown table."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for field, info in Settings.model_fields.items():
        default = "" if info.default in (None, (), PydanticUndefined) else f"`{info.default}`"
        rows.append(f"| `{PREFIX}{field.upper()}` | {default} | {info.description} |")
    return "\n".join(rows)
