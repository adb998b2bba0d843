"""The store that counts requests for the rate limits: this worker's memory, or a server that several services share."""

from typing import Any

from limits.aio.storage import Storage
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from pydantic import SecretStr

STORE_SECONDS = 0.25


def open_store(address: SecretStr) -> Storage:
    """Open a store without connecting to it.

    Parameters
    ----------
    address
        Address of an asynchronous store of the library `limits`, with its password.

    Returns
    -------
    Storage
        Its methods raise StorageError if the server fails. Redis has `STORE_SECONDS` for each answer.

    Raises
    ------
    ConfigurationError
        If the address is not that of an asynchronous store, or if the package of the store is missing.
    """
    text = address.get_secret_value()
    try:
        storage = storage_from_string(text, wrap_exceptions=True, **_options(text))
    except (ImportError, ValueError) as error:
        raise ConfigurationError(type(error).__name__) from None  # the text may contain the password
    if not isinstance(storage, Storage):
        raise ConfigurationError("not an asynchronous store")
    return storage


def _options(address: str) -> dict[str, Any]:
    """Use the client redis-py, which is in the image, and wait for no answer longer than the time limit."""
    if not address.startswith("async+redis"):
        return {}
    # The package takes 20 MB of memory in each worker.
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import ConnectionError as BrokenConnection  # noqa: PLC0415

    return {
        "implementation": "redispy",
        "socket_timeout": STORE_SECONDS,
        "socket_connect_timeout": STORE_SECONDS,
        # A connection that broke while it was unused is opened again at once. A slow server is not asked twice.
        "retry": Retry(NoBackoff(), 1, supported_errors=(BrokenConnection,)),
    }
