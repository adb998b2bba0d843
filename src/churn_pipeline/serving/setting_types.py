"""Types of the service's settings that more than one line describes: how their text is read, and what makes it invalid."""

import ipaddress
from typing import Annotated, Any, Literal

import limits
from limits.errors import ConfigurationError
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from churn_pipeline.serving.keys import read_keys
from churn_pipeline.serving.rate_limit_store import open_store


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := read_keys(keys)[1]:
        raise ValueError(f"entry {wrong[0]} is not name:hash")
    return keys


def _check_limit(limit: str) -> str:
    try:
        readable = limits.parse(limit).amount > 0
    except ValueError:
        readable = False
    if not readable:
        raise ValueError("must be a number per time unit, such as 600/minute")
    return limit


def _check_store(store: SecretStr) -> SecretStr:
    try:
        open_store(store)
    except ConfigurationError:
        raise ValueError(
            "must be an asynchronous store of the library limits whose package is installed, such as async+redis://host:6379"
        ) from None
    return store


def _check_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for number, network in enumerate(networks, 1):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(f"entry {number} is not an address or network, such as 10.0.0.0/8") from None
    return networks


def _check_length(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value()) < 16:
        raise ValueError("must have at least 16 characters")
    return secret


CommaSeparated = Annotated[tuple[str, ...], BeforeValidator(_split)]
StoredKeys = Annotated[CommaSeparated, AfterValidator(_check_keys)]
Networks = Annotated[CommaSeparated, AfterValidator(_check_networks)]
RateLimit = Annotated[str, AfterValidator(_check_limit)]
StoreAddress = Annotated[SecretStr, AfterValidator(_check_store)]
LongSecret = Annotated[SecretStr | None, AfterValidator(_check_length)]
Access = Literal["open", "key", "off"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
