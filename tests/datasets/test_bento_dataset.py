"""Bentos of a small service, built in the test's own store."""

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from bentoml import Tag
from kedro.io import DatasetError
from tests.bentos import could_unpickle, files_in
from tests.conftest import ROOT
from tests.serving.signing import write_keys

from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets import BentoDataset, SigningKeyDataset
from churn_pipeline.datasets.bento_dataset import CODE, BentoContent, content_digest
from churn_pipeline.datasets.signing import BundleSigner
from churn_pipeline.serving.bundle import BundleError
from churn_pipeline.serving.bundle_files import read_folder
from churn_pipeline.serving.signature import verify_signature

SERVICE = """
import bentoml
from starlette.applications import Starlette

@bentoml.asgi_app(Starlette(), path="/")
@bentoml.service
class ChurnService:
    pass
"""
CONTENT = BentoContent(
    files={
        "requirements.txt": b"bentoml==1.4.39\n",
        "bundle/model_card.md": b"# Card\n",
        "bundle/model.onnx": b"1",
    },
    labels={"table": "customers", "threshold": "0.3", "candidate": "a+b"},
    description="bundle/model_card.md",
)


def dataset(folder: Path, package: Path | None = None, name: str = "churn_customers") -> BentoDataset:
    return BentoDataset(
        name=name,
        store=str(folder / "store"),
        export={"filepath": str(folder / "exported" / "churn.bento")},
        package=str(package or folder / "package"),
        recipe=str(ROOT / "bentos" / "Dockerfile.j2"),
        base_image="python:3.11-slim",
    )


def write_package(folder: Path, service: str = SERVICE) -> None:
    for name, text in {
        "__init__.py": "",
        "contract/__init__.py": "",
        "contract/schema.py": "import pandas",
        "contract/table.py": "",
        "serving/__init__.py": "",
        "serving/service.py": service,
        "serving/static/page.html": "<p>",
        "pipelines/nodes.py": "import kedro",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package and its Bento in a store; tests must not change it."""
    folder = tmp_path_factory.mktemp("built")
    write_package(folder / "package")
    dataset(folder).save(CONTENT)
    return folder


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_bento_is_loaded_with_its_labels_and_model_card(built: Path) -> None:
    bento = dataset(built).load()
    assert bento.tag.name == "churn_customers"
    assert bento.info.labels == CONTENT.labels
    assert bento.doc == "# Card\n"
    assert bento.info.service == "churn_pipeline.serving.service:ChurnService"


def test_a_bento_contains_the_service_and_the_bundle_and_nothing_else(built: Path) -> None:
    files = dict(files_in(built / "exported" / "churn.bento"))
    ours = {name.removeprefix("src/") for name in files if name.startswith("src/")}
    code = {"__init__.py", "contract/__init__.py", "contract/table.py", "serving/__init__.py", "serving/service.py"}
    code |= {"serving/static/page.html"}
    assert ours == {*CONTENT.files, *(f"churn_pipeline/{name}" for name in code), "Dockerfile.j2", "bentofile.yaml"}
    assert files["src/bundle/model.onnx"] == b"1"
    assert not [name for name, content in files.items() if could_unpickle(name, content)]


def test_the_version_is_the_digest_of_the_content(built: Path) -> None:
    bento = dataset(built).load()
    assert content_digest(Path(bento.path) / "src").startswith(bento.tag.version or "none")


def test_the_recipe_has_the_labels(built: Path) -> None:
    recipe = dict(files_in(built / "exported" / "churn.bento"))["env/docker/Dockerfile"].decode()
    assert 'churn.table="customers"' in recipe
    assert 'churn.candidate="a+b"' in recipe
    assert "FROM python:3.11-slim" in recipe
    assert "--require-hashes" in recipe
    assert "USER 10001" in recipe
    assert "HEALTHCHECK" in recipe


def test_the_same_content_is_the_same_bento_and_is_not_built_again(copied: Path) -> None:
    before = dataset(copied).load()
    (copied / "exported" / "churn.bento").unlink()
    dataset(copied).save(CONTENT)
    after = dataset(copied).load()
    assert after.tag == before.tag
    assert after.creation_time == before.creation_time
    assert (copied / "exported" / "churn.bento").is_file()


def test_other_content_is_another_bento_and_a_load_returns_the_last(copied: Path) -> None:
    first = dataset(copied).load().tag
    dataset(copied).save(replace(CONTENT, files={**CONTENT.files, "bundle/model.onnx": b"2"}))
    second = dataset(copied).load().tag
    assert second.name == first.name
    assert second != first
    dataset(copied).save(CONTENT)
    assert dataset(copied).load().tag == first


def test_a_bento_that_was_changed_in_the_store_is_built_again(copied: Path) -> None:
    before = dataset(copied).load()
    (Path(before.path) / "src/bundle/model.onnx").write_bytes(b"another")
    dataset(copied).save(CONTENT)
    after = dataset(copied).load()
    assert after.tag == before.tag
    assert (Path(after.path) / "src/bundle/model.onnx").read_bytes() == b"1"


def signed_content(key: Path) -> BentoContent:
    return replace(CONTENT, signer=SigningKeyDataset(credentials={"private_key": str(key)}).load())


def test_a_key_signs_the_bundle_and_changes_neither_version_nor_other_files(copied: Path) -> None:
    public = write_keys(copied)
    before = dataset(copied).load()
    unsigned = read_folder(Path(before.path) / "src/bundle")
    dataset(copied).save(signed_content(copied / "key.pem"))
    after = dataset(copied).load()
    assert after.tag == before.tag
    files = read_folder(Path(after.path) / "src/bundle")
    verify_signature(files, public)
    assert files == {**unsigned, "model.sig": files["model.sig"]}
    exported = dict(files_in(copied / "exported" / "churn.bento"))
    verify_signature({name: exported[f"src/bundle/{name}"] for name in files}, public)


def test_another_key_signs_the_same_bento_again(copied: Path) -> None:
    first, second = write_keys(copied, "first"), write_keys(copied, "second")
    for name in ("first", "second"):
        dataset(copied).save(signed_content(copied / f"{name}.pem"))
    files = read_folder(Path(dataset(copied).load().path) / "src/bundle")
    verify_signature(files, second)
    with pytest.raises(BundleError, match="another key"):
        verify_signature(files, first)


def test_without_a_key_the_bundle_is_not_signed_and_the_log_says_so(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_keys(copied)
    dataset(copied).save(signed_content(copied / "key.pem"))
    with caplog.at_level("INFO"):
        dataset(copied).save(CONTENT)
    assert "The bundle is not signed" in caplog.text
    assert "model.sig" not in read_folder(Path(dataset(copied).load().path) / "src/bundle")


def test_a_model_that_is_replaced_before_it_is_signed_is_not_exported(copied: Path) -> None:
    write_keys(copied)
    (copied / "exported" / "churn.bento").unlink()

    class Late(BundleSigner):
        def sign(self, folder: Path) -> None:
            (folder / "model.onnx").write_bytes(b"another")
            super().sign(folder)

    with pytest.raises(DatasetError, match=r"was changed in .* while it was signed"):
        dataset(copied).save(replace(CONTENT, signer=Late(copied / "key.pem")))
    assert not (copied / "exported" / "churn.bento").exists()


@pytest.mark.parametrize("credentials", [None, {}, {"private_key": None}, {"private_key": "", "password": "x"}])
def test_without_credentials_there_is_no_signer(credentials: dict[str, str] | None) -> None:
    assert SigningKeyDataset(credentials=credentials).load() is None


def test_a_key_that_cannot_be_read_is_an_error_that_names_no_password(tmp_path: Path) -> None:
    dataset = SigningKeyDataset(credentials={"private_key": str(tmp_path / "nowhere.pem"), "password": "SECRET"})
    with pytest.raises((ProjectError, DatasetError)) as caught:
        dataset.load()
    assert "nowhere.pem:\n  - cannot be read: No such file or directory" in str(caught.value)
    assert "SECRET" not in str(caught.value) + str(dataset)
    with pytest.raises(DatasetError, match="only read"):
        dataset.save("a key")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"labels": {"table": "others"}}, {"files": {"requirements.txt": b"bentoml==1.4.38\n"}}]
)
def test_labels_and_packages_change_the_version(change: dict[str, object], built: Path, tmp_path: Path) -> None:
    laid_out = [tmp_path / "one", tmp_path / "two"]
    for folder, content in zip(laid_out, (CONTENT, replace(CONTENT, **change)), strict=True):
        dataset(built).write_sources(content, folder)
    assert content_digest(laid_out[0]) != content_digest(laid_out[1])


def test_a_service_that_cannot_be_imported_is_an_error(tmp_path: Path) -> None:
    write_package(tmp_path / "package", "import churn_pipeline.nowhere\n")
    with pytest.raises(DatasetError, match=r"(?s)BentoML could not build churn_customers.*churn_pipeline\.nowhere"):
        dataset(tmp_path).save(CONTENT)
    assert not dataset(tmp_path).exists()


def test_a_name_becomes_valid_for_bentoml() -> None:
    assert dataset(Path("nowhere"), name="churn_My Täble").name_in_store == "churn_my_t_ble"
    for name in ("main.churn.telco", "churn_last_", "_first.", "x" * 62 + "_yz", "MAIN.Churn.Ä"):
        assert str(Tag(dataset(Path("nowhere"), name=name).name_in_store))


def test_the_search_for_pickles_finds_them() -> None:
    assert could_unpickle("model", pickle.dumps({"a": 1}))
    assert could_unpickle("model", pickle.dumps([1], protocol=0))
    assert could_unpickle("model.joblib", b"")
    for compress in (0, 3, "xz"):
        joblib.dump({"a": np.arange(3)}, buffer := io.BytesIO(), compress=compress)
        assert could_unpickle("model", buffer.getvalue()), compress
    assert not could_unpickle("manifest.json", json.dumps({"a": 1}).encode())
    assert not could_unpickle("code.py", b"import this\n")
    assert not could_unpickle("digest", hashlib.sha256(b"").hexdigest().encode())


def test_a_bento_has_every_module_that_the_service_imports() -> None:
    code = (
        "import importlib, pkgutil, sys, churn_pipeline.serving as serving\n"
        "for module in pkgutil.iter_modules(serving.__path__):\n"
        "    if module.name != 'service':\n"  # it loads a bundle when it is imported
        "        importlib.import_module(f'churn_pipeline.serving.{module.name}')\n"
        "print(*(getattr(m, '__file__', '') for n, m in sys.modules.items() if n.startswith('churn_pipeline')))"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    package = ROOT / "src" / "churn_pipeline"
    packaged = {str(file) for pattern in CODE for file in package.glob(pattern)}
    assert set(imported) <= packaged
    assert all(list(package.glob(pattern)) for pattern in CODE)
