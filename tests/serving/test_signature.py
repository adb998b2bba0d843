"""Signed bundles: served if the required key signed exactly these files, refused with one line otherwise."""

import base64
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import onnxruntime
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_signing.verifying import Config
from tests.customers import make_contract
from tests.serving.conftest import customers_of, make_bundle, rewrite_manifest
from tests.serving.running import serving
from tests.serving.signing import write_keys

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets.signing import BundleSigner
from churn_pipeline.serving import bundle as bundle_module
from churn_pipeline.serving.bundle import BundleError, load_bundle
from churn_pipeline.serving.bundle_files import read_folder
from churn_pipeline.serving.signature import verify_signature

FILES = ["contract.json", "decision.json", "manifest.json", "model.onnx", "model_card.md", "sbom.cdx.json"]
FILES += ["sample.json", "training_profile.json"]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the signed `bundle` and keys `key` and `other`; tests must not change it."""
    folder = tmp_path_factory.mktemp("signed")
    write_keys(folder)
    write_keys(folder, "other")
    make_bundle(folder / "bundle")
    BundleSigner(folder / "key.pem").sign(folder / "bundle")
    return folder


@pytest.fixture
def copied(signed: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(signed, tmp_path / "copied"))


def refusal(folder: Path, key: str = "key") -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder / "bundle", folder / f"{key}.pub")
    message = str(caught.value)
    assert message.isprintable(), "one line without control characters"
    return message


def accepted_by_library(folder: Path, key: str = "key") -> bool:
    """Whether model-signing accepts the bundle; it raises errors of many types."""
    try:
        verifier = Config().use_elliptic_key_verifier(public_key=folder / f"{key}.pub")
        verifier.verify(folder / "bundle", folder / "bundle" / "model.sig")
    except Exception:
        return False
    return True


# --- the whole way ---------------------------------------------------------------------------------------------------


def test_a_signed_bundle_is_served_and_named_in_the_log(signed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert load_bundle(signed / "bundle", signed / "key.pub").manifest.model_version == "1"
    assert any("The bundle's 8 files are signed by the key" in line for line in caplog.messages)
    assert accepted_by_library(signed)


def test_a_signed_bundle_is_served_where_no_signature_is_required(signed: Path) -> None:
    assert load_bundle(signed / "bundle").manifest.model_version == "1"


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_every_curve_and_an_encrypted_key(curve: ec.EllipticCurve, copied: Path) -> None:
    write_keys(copied, "own", curve, password="Geheimnis ä")
    BundleSigner(copied / "own.pem", "Geheimnis ä").sign(copied / "bundle")
    load_bundle(copied / "bundle", copied / "own.pub")
    assert accepted_by_library(copied, "own")
    assert "signed by another key" in refusal(copied)


def test_keys_made_as_the_documentation_says(copied: Path) -> None:
    page = Path(__file__).parents[2] / "docs/how_to/sign.md"
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("openssl ")]
    assert len(lines) == 2
    for line in lines:
        subprocess.run(line, cwd=copied, shell=True, check=True, capture_output=True)
    BundleSigner(copied / "signing_key.pem").sign(copied / "bundle")
    load_bundle(copied / "bundle", copied / "signing_key.pub.pem")


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(copied: Path, name: str) -> None:
    content = bytearray((copied / "bundle" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / "bundle" / name).write_bytes(content)
    assert refusal(copied) == f"'{name}' was changed after it was signed: package the model again"
    assert not accepted_by_library(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_refused(copied: Path, name: str) -> None:
    (copied / "bundle" / name).unlink()
    assert refusal(copied) == f"'{name}' is signed but missing: package the model again"
    assert not accepted_by_library(copied)


@pytest.mark.parametrize(
    "name", ["a.txt", ".hidden", ".gitignore", "below/model.onnx", "a\nb\x1b[31m", "model.sig.old"]
)
def test_an_added_file_is_refused(copied: Path, name: str) -> None:
    (copied / "bundle" / name).parent.mkdir(exist_ok=True)
    (copied / "bundle" / name).write_text("added")
    assert refusal(copied) == f"{name!r} is not signed: remove it, or package the model again"
    if name != ".gitignore":  # the library ignores it by default
        assert not accepted_by_library(copied)


def test_a_symbolic_link_is_refused_although_its_content_is_signed(copied: Path) -> None:
    (copied / "bundle" / "model.onnx").rename(copied / "moved.onnx")
    (copied / "bundle" / "model.onnx").symlink_to(copied / "moved.onnx")
    assert "'model.onnx' in" in refusal(copied)
    assert "is not a regular file" in refusal(copied)
    assert not accepted_by_library(copied)


def test_a_named_pipe_does_not_block_the_start(copied: Path) -> None:
    os.mkfifo(copied / "bundle" / "pipe")
    assert "'pipe' in" in refusal(copied)


def test_the_bundles_folder_may_be_a_symbolic_link(copied: Path) -> None:
    (copied / "bundle").rename(copied / "version_1")
    (copied / "bundle").symlink_to(copied / "version_1")
    assert load_bundle(copied / "bundle", copied / "key.pub").manifest.model_version == "1"


def test_an_unsigned_bundle_is_refused(copied: Path) -> None:
    (copied / "bundle" / "model.sig").unlink()
    assert refusal(copied) == "the bundle is not signed (model.sig is missing): package the model with a signing key"


def test_a_missing_folder_is_refused(copied: Path) -> None:
    shutil.rmtree(copied / "bundle")
    assert refusal(copied).startswith("there is no folder ")


def test_another_key_is_refused(copied: Path) -> None:
    assert "is signed by another key" in refusal(copied, "other")
    BundleSigner(copied / "other.pem").sign(copied / "bundle")
    assert "is signed by another key" in refusal(copied)


def test_a_signature_that_claims_the_right_key_is_refused(copied: Path) -> None:
    """The hint that names the key is not signed, so an attacker can write the right one."""
    hint = signature_of(copied)["verificationMaterial"]
    BundleSigner(copied / "other.pem").sign(copied / "bundle")
    rewrite_signature(copied, verificationMaterial=hint)
    assert "model.sig was not made by the key" in refusal(copied)
    assert not accepted_by_library(copied)


def test_a_manifest_made_again_with_right_digests_is_refused(copied: Path) -> None:
    """The attack that digests alone cannot stop: another model, with a manifest that fits it."""
    make_bundle(copied / "bundle", customers=customers_of(make_contract(), 200))
    assert load_bundle(copied / "bundle").training_profile.rows == 200, "digests alone accept it"
    assert "was changed after it was signed" in refusal(copied)


def test_the_signature_of_another_bundle_is_refused(copied: Path, tmp_path: Path) -> None:
    other = shutil.copytree(copied / "bundle", tmp_path / "other")
    (other / "model_card.md").write_text("# Another card\n")
    (other / "model.sig").unlink()
    rewrite_manifest(other)
    BundleSigner(copied / "key.pem").sign(other)
    shutil.copy(other / "model.sig", copied / "bundle" / "model.sig")
    assert "'manifest.json' was changed" in refusal(copied)


# --- the signature file ----------------------------------------------------------------------------------------------


def signature_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "bundle" / "model.sig").read_text()))


def rewrite_signature(folder: Path, **changes: Any) -> None:
    (folder / "bundle" / "model.sig").write_text(json.dumps({**signature_of(folder), **changes}))


def _payload(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def apply(signature: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(signature["dsseEnvelope"]["payload"]))
        change(statement)
        signature["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return apply


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a resource removed": _payload(lambda statement: statement["predicate"]["resources"].pop()),
    "a path ignored": _payload(lambda statement: statement["predicate"]["serialization"].update(ignore_paths=["a"])),
    "the same payload, encoded again": _payload(lambda statement: None),
    "no signature": lambda signature: signature["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda signature: signature["dsseEnvelope"].update(
        signatures=signature["dsseEnvelope"]["signatures"] * 2
    ),
    "an empty signature": lambda signature: signature["dsseEnvelope"]["signatures"][0].update(sig=""),
    "a signature that is no text": lambda signature: signature["dsseEnvelope"]["signatures"][0].update(sig=[1]),
    "another type of payload": lambda signature: signature["dsseEnvelope"].update(payloadType="text/plain"),
    "another type of file": lambda signature: signature.update(mediaType="text/plain"),
    "a certificate": lambda signature: signature["verificationMaterial"].update(certificate={"rawBytes": ""}),
    "no key": lambda signature: signature["verificationMaterial"].pop("publicKey"),
    "an unknown field with a line break": lambda signature: signature.update({"a\nb\x1b[31m": 1}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_signature_file_is_refused(copied: Path, name: str) -> None:
    signature = signature_of(copied)
    CHANGES[name](signature)
    (copied / "bundle" / "model.sig").write_text(json.dumps(signature))
    assert "model.sig" in refusal(copied)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"mediaType": 1}', b"null"])
def test_a_file_that_is_not_a_signature_is_refused(copied: Path, content: bytes) -> None:
    (copied / "bundle" / "model.sig").write_bytes(content)
    assert "model.sig is malformed" in refusal(copied)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject, signed: Path) -> None:
    """A flip in the signature file may leave its meaning unchanged; then the files are still the signed ones."""
    files = read_folder(signed / "bundle")
    name = data.draw(st.sampled_from(sorted(files)))
    position = data.draw(st.integers(0, len(files[name]) - 1))
    content = bytearray(files[name])
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    changed = {**files, name: bytes(content)}
    if name != "model.sig" or decoded(changed["model.sig"]) != decoded(files["model.sig"]):
        with pytest.raises(BundleError):
            verify_signature(changed, signed / "key.pub")


def decoded(signature: bytes) -> object:
    """What a signature file means: the signed bytes and their signature; None if it cannot be read."""
    try:
        envelope = json.loads(signature)["dsseEnvelope"]
        [one] = envelope["signatures"]
        return base64.b64decode(envelope["payload"]), base64.b64decode(one["sig"])
    except (ValueError, KeyError):
        return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_library_accepts_what_we_accept(data: st.DataObject, signed: Path, tmp_path_factory: Any) -> None:
    """With changed files the two agree; of changed signature files, ours accepts no more than the library."""
    folder = Path(shutil.copytree(signed, tmp_path_factory.mktemp("mutated") / "copy"))
    files = read_folder(folder / "bundle")
    name = data.draw(st.sampled_from(["model.sig", "model.sig", "model.sig", *sorted(files), "new.txt"]))
    content = bytearray(files.get(name, b""))
    kind = data.draw(st.sampled_from(["same", "flip", "cut", "insert"]))
    position = data.draw(st.integers(0, max(0, len(content) - 1)))
    if kind == "flip" and content:
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del content[position : position + data.draw(st.integers(1, 5))]
    elif kind == "insert":
        content[position:position] = data.draw(st.binary(min_size=1, max_size=4))
    (folder / "bundle" / name).write_bytes(content)
    try:
        verify_signature(read_folder(folder / "bundle"), folder / "key.pub")
        accepted = True
    except BundleError:
        accepted = False
    assert accepted_by_library(folder) or not accepted
    if name != "model.sig":
        assert accepted_by_library(folder) == accepted
    shutil.rmtree(folder)


# --- nothing is used before it was verified --------------------------------------------------------------------------


def test_nothing_is_parsed_before_the_signature_was_verified(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "parse", lambda *_: pytest.fail("parsed"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("given to onnxruntime"))
    (copied / "bundle" / "model_card.md").write_text("changed")
    assert "'model_card.md' was changed" in refusal(copied)


def test_the_verified_bytes_are_the_loaded_ones(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who replaces every file right after the verification changes nothing."""
    from churn_pipeline.serving import signature

    verify = signature.verify_signature

    def verify_and_lose_the_race(*arguments: Any) -> str:
        fingerprint = verify(*arguments)
        for file in (copied / "bundle").iterdir():
            file.write_bytes(b"replaced")
        return fingerprint

    monkeypatch.setattr(signature, "verify_signature", verify_and_lose_the_race)
    assert load_bundle(copied / "bundle", copied / "key.pub").training_profile.rows == 300
    assert (copied / "bundle" / "model.onnx").read_bytes() == b"replaced"


@pytest.mark.parametrize("key", ["key", "other"])
def test_the_service_starts_only_with_the_required_key(signed: Path, tmp_path: Path, key: str) -> None:
    environment = {
        "CHURN_SERVING_BUNDLE": str(signed / "bundle"),
        "CHURN_SERVING_AUTHENTICATION": "off",
        "CHURN_SERVING_SIGNATURE_KEY": str(signed / f"{key}.pub"),
    }
    service = "churn_pipeline.serving.service:ChurnService"
    if key == "key":
        with serving(tmp_path, environment, "--working-dir", "src", service=service) as running:
            assert httpx.get(f"{running.url}/model").json()["model_version"] == "1"
    else:
        with (
            pytest.raises(AssertionError) as caught,
            serving(tmp_path, environment, "--working-dir", "src", service=service),
        ):
            pass
        assert [line for line in str(caught.value).splitlines() if "signed by another key" in line]
        assert "Traceback" not in str(caught.value)


def test_cryptography_is_not_imported_without_a_required_signature(signed: Path) -> None:
    code = (
        "import sys; from churn_pipeline.serving.bundle import load_bundle; load_bundle(sys.argv[1]); "
        "sys.exit(sorted({'cryptography', 'model_signing'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(signed / "bundle")], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "text", "private", "rsa", "other curve"])
def test_a_public_key_that_cannot_be_used_is_refused(copied: Path, kind: str) -> None:
    file = copied / "key.pub"
    file.unlink()
    if kind == "text":
        file.write_text("no key")
    elif kind == "private":
        shutil.copy(copied / "key.pem", file)
    elif kind != "missing":
        key: Any = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256K1())
        file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    expected = (
        "cannot be read: No such file" if kind == "missing" else "is not a public EC key on P-256, P-384 or P-521"
    )
    assert expected in refusal(copied)


@pytest.mark.parametrize("kind", ["missing", "text", "public", "no password", "wrong password", "other curve"])
def test_a_private_key_that_cannot_be_used_is_an_error(tmp_path: Path, kind: str) -> None:
    protected = "password" in kind
    write_keys(tmp_path, curve=ec.SECP256K1() if kind == "other curve" else None, password="right" if protected else "")
    file = tmp_path / "key.pem"
    if kind == "missing":
        file.unlink()
    elif kind == "text":
        file.write_text("no key")
    elif kind == "public":
        file = tmp_path / "key.pub"
    with pytest.raises(ProjectError, match=r"cannot be (used: it must be a private EC key|read: No such file)"):
        BundleSigner(file, "wrong" if kind == "wrong password" else None)
