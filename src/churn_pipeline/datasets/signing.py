"""The key that signs bundles, and signing in the format of OpenSSF Model Signing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets.files import path_on_this_machine
from churn_pipeline.documents import SIGNATURE_FILE

if TYPE_CHECKING:  # model_signing imports in 0.7 s, and Kedro imports this module for every command
    from model_signing.signing import Config


class BundleSigner:
    """Signs folders with one private key.

    Parameters
    ----------
    private_key
        File of an EC key on P-256, P-384 or P-521, in PEM format.
    password
        Password of the key, if it has one.

    Raises
    ------
    ProjectError
        If the key cannot be read or used.
    """

    def __init__(self, private_key: str | Path, password: str | None = None) -> None:
        self._config = _signing_config(Path(private_key), password)

    def sign(self, folder: Path) -> None:
        """Write the signature of all files in a folder into the folder; an earlier signature is replaced."""
        self._config.sign(folder, folder / SIGNATURE_FILE)


class SigningKeyDataset(AbstractDataset[NoReturn, BundleSigner | None]):
    """Reads the key that signs bundles; None if the credentials name none.

    Parameters
    ----------
    credentials
        ``private_key``, the file of the key, and its ``password``; each may be missing or empty.

    Examples
    --------
    >>> from churn_pipeline.datasets import SigningKeyDataset
    >>> SigningKeyDataset(credentials={"private_key": None}).load() is None
    True
    """

    def __init__(self, credentials: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> None:
        self._credentials = credentials or {}
        self.metadata = metadata

    def load(self) -> BundleSigner | None:
        """Read the key.

        Raises
        ------
        ProjectError
            If it cannot be read or used.
        DatasetError
            If it is not on this machine.
        """
        key, password = self._credentials.get("private_key"), self._credentials.get("password")
        return BundleSigner(path_on_this_machine(key, "The signing key"), password) if key else None

    def save(self, data: NoReturn) -> None:
        """Raise an error: a key is only read."""
        raise DatasetError("A signing key is only read. docs/how_to/sign.md shows how to make one.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"signs": bool(self._credentials.get("private_key"))}


def _signing_config(private_key: Path, password: str | None) -> Config:
    from model_signing.hashing import Config as HashingConfig
    from model_signing.signing import Config

    # model-signing 1.1.1 gives the password to cryptography unchanged, which needs bytes.
    encoded: Any = str(password).encode() if password else None
    hashed = HashingConfig().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
    try:
        config = Config().use_elliptic_key_signer(private_key=private_key, password=encoded)
    except OSError as error:
        raise ProjectError(f"The signing key {private_key}", f"cannot be read: {error.strerror}") from None
    except (TypeError, ValueError, AttributeError):  # a wrong password, another format, and another kind of key
        raise ProjectError(
            f"The signing key {private_key}",
            "cannot be used: it must be a private EC key on P-256, P-384 or P-521 in PEM format, and its password must be set",
        ) from None
    return config.set_hashing_config(hashed)
