"""Verifying a bundle's signature, on the bytes that are loaded.

The signature is made by model-signing: ECDSA over an in-toto statement with the SHA-256 of each file, in a DSSE envelope in a
Sigstore bundle. That library verifies a folder instead of the bytes that are loaded from it, and brings many packages.

References
----------
OpenSSF Model Signing 1.0, https://github.com/ossf/model-signing-spec; Sigstore bundle 0.3, https://docs.sigstore.dev/about/bundle/;
DSSE 1.0, https://github.com/secure-systems-lab/dsse; in-toto attestation 1, https://github.com/in-toto/attestation.
"""

import base64
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from churn_pipeline.documents import SIGNATURE_FILE
from churn_pipeline.serving.bundle_files import BundleError, parse
from churn_pipeline.serving.bundle_parts import Sha256

logger = logging.getLogger(__name__)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
# The hash for each curve, by the size of its keys in bits.
HASHES: Mapping[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


def _from_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("expected a text in base64")
    return base64.b64decode(value, validate=True)


Base64 = Annotated[bytes, BeforeValidator(_from_base64)]


class _Strict(BaseModel):
    """Not signed as a whole, so nothing unexpected is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)


class _Signature(_Strict):
    sig: Base64
    keyid: Literal[""] = ""


class _Envelope(_Strict):
    payload: Base64
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: tuple[_Signature]


class _Key(_Strict):
    hint: Sha256


class _Material(_Strict):
    public_key: _Key
    tlog_entries: tuple[()] = ()


class _SignatureFile(_Strict):
    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: _Material
    dsse_envelope: _Envelope


class _Resource(BaseModel):
    name: str
    algorithm: Literal["sha256"]
    digest: Sha256


class _Serialization(BaseModel):
    method: Literal["files"]
    hash_type: Literal["sha256"]


class _Predicate(BaseModel):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(BaseModel):
    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    predicate_type: Literal["https://model_signing/signature/v1.0"] = Field(alias="predicateType")
    predicate: _Predicate


def verify_signature(files: Mapping[str, bytes], key_file: Path) -> str:
    """Check that files are exactly those that the holder of a key signed.

    Parameters
    ----------
    files
        All files of a bundle by name, the signature included.
    key_file
        File of the public key: EC on P-256, P-384 or P-521, in PEM format.

    Returns
    -------
    str
        SHA-256 of the public key, in hexadecimal.

    Raises
    ------
    BundleError
        If the key cannot be read, the signature is missing or wrong, or a file was changed, added or removed.
    """
    key = _public_key(key_file)
    fingerprint = fingerprint_of(key)
    if SIGNATURE_FILE not in files:
        raise BundleError(
            f"the bundle is not signed ({SIGNATURE_FILE} is missing): package the model with a signing key"
        )
    signature = parse(_SignatureFile, files[SIGNATURE_FILE], SIGNATURE_FILE)
    statement = parse(_Statement, _signed_payload(signature, key, fingerprint), SIGNATURE_FILE)
    signed = {resource.name: resource.digest for resource in statement.predicate.resources}
    _compare(signed, {name: content for name, content in files.items() if name != SIGNATURE_FILE})
    logger.info("The bundle's %d files are signed by the key %s…", len(signed), fingerprint[:12])
    return fingerprint


def fingerprint_of(key: ec.EllipticCurvePublicKey) -> str:
    """The SHA-256 of a public key in PEM format, which names the key in a signature."""
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _public_key(file: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(file.read_bytes())
    except OSError as error:
        raise BundleError(f"the public key {file} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise BundleError(f"{file} is not a public EC key on P-256, P-384 or P-521 in PEM format")
    return key


def _signed_payload(signature: _SignatureFile, key: ec.EllipticCurvePublicKey, fingerprint: str) -> bytes:
    """Return the payload if the key signed it."""
    hint = signature.verification_material.public_key.hint
    if hint != fingerprint:
        raise BundleError(
            f"the bundle is signed by another key ({hint[:12]}…) than the one required ({fingerprint[:12]}…)"
        )
    envelope = signature.dsse_envelope
    # DSSE's encoding of type and payload, which is what was signed.
    message = b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(envelope.payload),
        envelope.payload,
    )
    try:
        key.verify(envelope.signatures[0].sig, message, ec.ECDSA(HASHES[key.key_size]))
    except InvalidSignature:
        raise BundleError(f"{SIGNATURE_FILE} was not made by the key {fingerprint[:12]}…, or was changed") from None
    return envelope.payload


def _compare(signed: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    for name in sorted(signed.keys() | files.keys()):
        if name not in signed:
            raise BundleError(f"{name!r} is not signed: remove it, or package the model again")
        if name not in files:
            raise BundleError(f"{name!r} is signed but missing: package the model again")
        if hashlib.sha256(files[name]).hexdigest() != signed[name]:
            raise BundleError(f"{name!r} was changed after it was signed: package the model again")
