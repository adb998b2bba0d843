"""`kedro verify-bundle`: of a bundle's folder, of a Bento's folder and of an exported Bento."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from churn_pipeline.cli import cli
from churn_pipeline.datasets.signing import BundleSigner
from tests.serving.conftest import make_bundle
from tests.serving.signing import write_keys


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Bento with a signed bundle, beside the keys `key` and `other`; tests must not change it."""
    folder = tmp_path_factory.mktemp("verified")
    write_keys(folder)
    write_keys(folder, "other")
    bundle = make_bundle(folder / "bento" / "src" / "bundle")
    BundleSigner(folder / "key.pem").sign(bundle)
    return folder / "bento"


def archive_of(bento: Path, file: Path) -> Path:
    with tarfile.open(file, "w:xz") as archive:  # as `Bento.export` does
        archive.add(bento, arcname=".")
    return file


def verify(path: Path, key: Path) -> Result:
    return CliRunner().invoke(cli, ["verify-bundle", str(path), "--key", str(key)])


def refusal(path: Path, key: Path) -> str:
    result = verify(path, key)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {path}: ")
    assert result.output.count("\n") == 1, "one line"
    return result.output


@pytest.mark.parametrize("kind", ["bundle", "Bento", "archive"])
def test_a_signed_bundle_is_named(bento: Path, tmp_path: Path, kind: str) -> None:
    folder = bento / "src" / "bundle" if kind == "bundle" else bento
    path = archive_of(bento, tmp_path / "churn.bento") if kind == "archive" else folder
    result = verify(path, bento.parent / "key.pub")
    assert (result.exit_code, result.output) == (0, "The bundle is signed by this key: churn_customers version 1.\n")
    assert "signed by another key" in refusal(path, bento.parent / "other.pub")


@pytest.mark.parametrize("kind", ["Bento", "archive"])
def test_a_changed_bundle_is_refused(bento: Path, tmp_path: Path, kind: str) -> None:
    copied = Path(shutil.copytree(bento, tmp_path / "bento"))
    (copied / "src/bundle/model_card.md").write_text("changed")
    path = archive_of(copied, tmp_path / "churn.bento") if kind == "archive" else copied
    assert "'model_card.md' was changed after it was signed" in refusal(path, bento.parent / "key.pub")


@pytest.mark.parametrize("content", ["", "text", "cut", "corrupt", "without a bundle", "outside", "a link"])
def test_an_archive_that_is_no_bento_is_refused(bento: Path, tmp_path: Path, content: str) -> None:
    file = archive_of(bento, tmp_path / "churn.bento")
    if content in ("", "text"):
        file.write_text(content)
    elif content == "cut":
        file.write_bytes(file.read_bytes()[:-200])
    elif content == "corrupt":
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 255
        file.write_bytes(whole)
    else:
        name = {"without a bundle": "bento.yaml", "outside": "src/bundle/../../../outside", "a link": "src/bundle/link"}
        member = tarfile.TarInfo(name[content])
        if content == "a link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        with tarfile.open(file, "w:xz") as archive:
            archive.addfile(member, io.BytesIO())
    refusal(file, bento.parent / "key.pub")
    assert not (tmp_path / "outside").exists()


def test_a_key_is_required(bento: Path) -> None:
    result = CliRunner().invoke(cli, ["verify-bundle", str(bento)])
    assert result.exit_code == 2
    assert "Missing option '--key'" in result.output
