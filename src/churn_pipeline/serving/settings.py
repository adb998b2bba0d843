"""All settings of the service, read from environment variables once, at start.

Every variable begins with ``CHURN_SERVING_``. Unknown names are refused, except the variables that Kubernetes sets by itself
for a service named churn-serving. A secret, a field of the type ``SecretStr``, can also be read from a file.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticUndefined

from churn_pipeline.serving.environment import FROM_FILE, read_environment, secret_fields
from churn_pipeline.serving.keys import read_keys
from churn_pipeline.serving.setting_types import (
    Access,
    CommaSeparated,
    LongSecret,
    Networks,
    RateLimit,
    Seconds,
    Share,
    StoreAddress,
    StoredKeys,
)

PREFIX = "CHURN_SERVING_"
NO_KEYS = (
    f"no API key is set: make one with 'python -m churn_pipeline.serving.keys NAME' and store the printed line in {PREFIX}KEYS "
    f"or in the file named by {PREFIX}KEYS_FILE. To serve without keys, set {PREFIX}AUTHENTICATION=off"
)


class SettingsError(ValueError):
    """Invalid settings. The message lists every problem without values, so it can be shown unchanged."""


class Settings(BaseModel):
    """The settings. Field ``rate_limit`` is read from ``CHURN_SERVING_RATE_LIMIT``; lists are comma-separated."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    bundle: Path | None = Field(None, description="Folder of the bundle. Default: the bundle inside the Bento.")
    signature_key: Path | None = Field(
        None,
        description="File of a public key (PEM). With it, the service serves only bundles that its private key signed.",
    )

    bundles: Path | None = Field(
        None,
        description="Folder of bundles, one sub-folder for each, instead of `BUNDLE`. Its file `current` names the served "
        "bundle, and `second` a second one. The files may change while the service runs.",
    )
    switch_seconds: Seconds = Field(
        60.0,
        description="Time limit for all workers to load a newly named bundle, in seconds; above it, all keep the old one.",
    )
    split_share: Share = Field(0.0, description="Share of customers that the second bundle answers for, from 0 to 1.")
    shadow: Literal["on", "off"] = Field(
        "off",
        description="`on`: the second bundle also scores the customers that the first one answers for. These predictions "
        "are counted and logged, not returned.",
    )

    workers: int = Field(1, ge=1, le=256, description="Number of worker processes.")

    address_file: Path | None = Field(
        None,
        description="File to which a worker writes the service's URL, for the image's health check. Default in the image: "
        "`/tmp/churn-serving-address`.",
    )

    authentication: Literal["on", "off"] = Field(
        "on", description="`off` accepts requests without a key. It also disables the rate limits, which count per key."
    )
    keys: StoredKeys = Field(
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

    rate_limit: RateLimit = Field(
        "6000/minute", description="Maximum rate of requests per key name, such as `100/second`; above it: 429."
    )
    failure_limit: RateLimit = Field(
        "60/minute", description="Maximum rate of requests without a valid key per client address; above it: 429."
    )
    rate_limit_store: StoreAddress = Field(
        SecretStr("async+memory://"),
        description="Store of the rate limits. In memory, each worker counts separately. `async+redis://:password@host:port` "
        "counts the requests of all workers and services together.",
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
    request_seconds: Seconds = Field(
        10.0,
        description="Time limit of a request including its body, in seconds; above it: 408, 503 or 504.",
    )
    body_seconds: Seconds = Field(5.0, description="Time limit of a request body, in seconds; above it: 408.")
    unread_bodies: int = Field(
        256, ge=1, description="Maximum number of bodies per key that a worker receives at once; above it: 503."
    )
    max_bytes_in_flight: int = Field(
        64_000_000,
        ge=1,
        description="Maximum size of all bodies that a worker holds, in bytes. One key may use half of it; above it: 503.",
    )
    concurrency: int = Field(
        2,
        ge=1,
        description="Number of threads of a worker for large requests, and as many again for explanations. Small requests need "
        "no thread.",
    )
    queue: int = Field(
        128,
        ge=0,
        description="Maximum number of requests that wait for their turn in a worker: of small ones, of large ones and of "
        "explanations. Beyond it, the key with the most waiting requests gets 503.",
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses or networks of proxies in front of the service, comma-separated. Only from these is "
        "`X-Forwarded-For` accepted as the client's address.",
    )

    drain_seconds: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that the service keeps serving after SIGTERM while its readiness check already fails.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Lowest level that is logged. Requests are logged as `info`, health checks as `debug`. The audit trail is "
        "logged at any level.",
    )

    trace_share: Share = Field(
        1.0,
        description="Share of requests that are traced, from 0 to 1, if `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector. For a "
        "request with a `traceparent` header, the caller decides.",
    )

    prediction_log: Path | None = Field(None, description="Folder of the prediction log. Default: no prediction log.")
    prediction_log_share: Share = Field(1.0, description="Share of requests in the prediction log, from 0 to 1.")
    prediction_log_bytes: int = Field(
        100_000_000, ge=1, description="Size at which a new prediction log file is started, in bytes."
    )
    prediction_log_total_bytes: int = Field(
        10_000_000_000,
        ge=1,
        description="Maximum size of all prediction log files in the folder, in bytes; the oldest are deleted first.",
    )
    prediction_log_days: float = Field(
        30.0, gt=0, allow_inf_nan=False, description="Age at which a prediction log file is deleted, in days."
    )
    prediction_log_id_key: LongSecret = Field(
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

    @field_validator("max_bytes_in_flight")
    @classmethod
    def _one_body_fits(cls, size: int, info: ValidationInfo) -> int:
        if size < info.data.get("max_body_bytes", 0):
            raise ValueError(f"must be at least {PREFIX}MAX_BODY_BYTES")
        return size

    @field_validator("prediction_log_total_bytes")
    @classmethod
    def _total_is_large_enough(cls, total: int, info: ValidationInfo) -> int:
        given = info.data
        least = (given.get("workers", 1) + 1) * given.get("prediction_log_bytes", 1)
        if given.get("prediction_log") is not None and total < least:
            raise ValueError(
                f"must be at least {least}: one file of {PREFIX}PREDICTION_LOG_BYTES for each worker, and one more"
            )
        return total

    @property
    def rate_limit_is_shared(self) -> bool:
        """Whether one limit counts the requests of all workers."""
        return not self.rate_limit_store.get_secret_value().startswith("async+memory")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings. An empty variable counts as not set.

        Raises
        ------
        SettingsError
            If any setting is unknown or invalid; one message lists all problems.
        """
        given, problems = read_environment(cls, PREFIX, environment)
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


def settings_table() -> str:
    """All settings with default and meaning, as a Markdown table."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for field, info in Settings.model_fields.items():
        shown = info.default.get_secret_value() if isinstance(info.default, SecretStr) else info.default
        default = "" if shown in (None, (), PydanticUndefined) else f"`{shown}`"
        name = PREFIX + field.upper()
        rows.append(f"| `{name}` | {default} | {info.description} |")
        if field in secret_fields(Settings):
            rows.append(f"| `{name}{FROM_FILE}` | | File that holds the value of `{name}`. Set only one of the two. |")
    return "\n".join(rows)
