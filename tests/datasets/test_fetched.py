"""Public files: downloaded once and checked by their SHA-256."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kedro.io import DatasetError

from churn_pipeline.contract.errors import TableError
from churn_pipeline.datasets import FetchedDataset

CONTENT = b"id,churn\n1,yes\n2,no\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Publisher(ThreadingHTTPServer):
    """Serves one file on this machine and counts the requests."""

    requests = 0
    content = CONTENT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/public/customers.csv"


class Answer(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        self.server.requests += 1
        found = self.path == "/public/customers.csv"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.server.content) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(self.server.content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Publisher(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(folder: Path, url: str, sha256: str = SHA256, **more: Any) -> FetchedDataset:
    return FetchedDataset(
        dataset={"type": "pandas.CSVDataset", "load_args": {"dtype": "str"}},
        url=url,
        sha256=sha256,
        path=str(folder),
        **more,
    )


def said_on_load(dataset: FetchedDataset) -> str:
    """The message that a command shows: Kedro wraps the error, the command line unwraps it."""
    with pytest.raises(DatasetError) as caught:
        dataset.load()
    assert isinstance(caught.value.__cause__, TableError)
    return str(caught.value.__cause__)


def test_a_file_is_downloaded_once(tmp_path: Path, publisher: Publisher) -> None:
    dataset = fetched(tmp_path / "raw", publisher.url)
    assert not dataset.exists()
    assert dataset.load()["churn"].tolist() == ["yes", "no"]
    assert dataset.exists()
    assert (tmp_path / "raw" / "customers.csv").read_bytes() == CONTENT
    dataset.load()
    fetched(tmp_path / "raw", publisher.url).load()
    assert publisher.requests == 1


def test_a_downloaded_file_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_bytes(CONTENT)
    assert len(fetched(tmp_path, "http://127.0.0.1:9/customers.csv").load()) == 2


def test_a_file_with_another_checksum_is_refused_and_deleted(tmp_path: Path, publisher: Publisher) -> None:
    publisher.content = CONTENT + b"3,yes\n"
    said = said_on_load(fetched(tmp_path, publisher.url))
    assert publisher.url in said
    assert "its SHA-256 differs" in said
    assert not list(tmp_path.iterdir())


def test_a_downloaded_file_that_was_changed_is_downloaded_again(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "customers.csv").write_bytes(b"edited")
    assert len(fetched(tmp_path, publisher.url).load()) == 2
    assert (tmp_path / "customers.csv").read_bytes() == CONTENT


@pytest.mark.parametrize("gone", ["the server", "the file"])
def test_a_failed_download_names_its_fix(tmp_path: Path, publisher: Publisher, gone: str) -> None:
    url = publisher.url.replace("customers", "others")
    if gone == "the server":
        publisher.shutdown()
        publisher.server_close()
    said = said_on_load(fetched(tmp_path, url))
    assert f"cannot be downloaded from {url}" in said
    assert "the download failed" in said
    assert f"Download it yourself to {tmp_path / 'others.csv'}" in said
    assert "CHURN_PUBLIC_DATA" in said


def test_a_local_copy_is_read_without_a_download(tmp_path: Path, publisher: Publisher) -> None:
    (tmp_path / "mine.csv").write_bytes(CONTENT)
    dataset = fetched(tmp_path / "raw", publisher.url, local_folder=str(tmp_path), local_name="mine.csv")
    assert dataset.exists()
    assert len(dataset.load()) == 2
    assert publisher.requests == 0
    assert not (tmp_path / "raw").exists()


def test_a_local_copy_of_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(CONTENT.replace(b"yes", b"no"))
    dataset = fetched(tmp_path, "http://127.0.0.1:9/customers.csv", local_folder=str(tmp_path), local_name="mine.csv")
    assert "mine.csv:\n  - differs from the published file (SHA-256): delete it" in said_on_load(dataset)


def test_a_missing_local_copy_is_an_error_without_a_download(tmp_path: Path, publisher: Publisher) -> None:
    dataset = fetched(tmp_path / "raw", publisher.url, local_folder=str(tmp_path), local_name="mine.csv")
    assert not dataset.exists()
    with pytest.raises(DatasetError, match=r"mine\.csv"):
        dataset.load()
    assert publisher.requests == 0


def test_a_public_file_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="only ever read"):
        fetched(tmp_path, "http://127.0.0.1:9/customers.csv").save("text")
