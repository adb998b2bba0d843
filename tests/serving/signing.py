"""Keys and signed bundles for tests."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def write_keys(folder: Path, name: str = "key", curve: ec.EllipticCurve | None = None, password: str = "") -> Path:
    """Write a pair of keys to `name`.pem and `name`.pub, and return the file of the public one."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    protection: Any = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    public = folder / f"{name}.pub"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public
