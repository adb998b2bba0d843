"""Studies on PostgreSQL end like studies in a SQLite file, also after a kill, a restart and a broken network."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import psycopg
import pytest
from deploy.local_servers import Servers
from kedro.io import DatasetError
from psycopg import sql
from sqlalchemy import make_url
from tests.datasets.test_study_dataset import CANDIDATE, make_task

from churn_pipeline.command_errors import actionable
from churn_pipeline.contract.errors import ProjectError
from churn_pipeline.datasets import StudyDataset, study_postgres
from churn_pipeline.modelling.search import SearchResult, SearchSettings, search_candidate
from churn_pipeline.modelling.studies import Trial

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(postgres: Servers, database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty database; the password is in the environment."""
    environment = postgres.environment()
    monkeypatch.setenv("PGPASSWORD", environment["PGPASSWORD"])
    return make_url(environment["CHURN_STUDIES"]).set(database=database).render_as_string()


def studies(url: str, place: str = "s3://bucket/telco/studies.db") -> Any:
    return StudyDataset(filepath=place, candidate="logistic", url=url, table="telco").load()


def search(url: str, trials: int = 8) -> SearchResult:
    return search_candidate(make_task(), CANDIDATE, SearchSettings(trials=trials), studies(url))


def trials_of(url: str) -> list[tuple[Any, ...]]:
    (name,) = optuna.get_all_study_names(url)
    stored = optuna.load_study(study_name=name, storage=url).trials
    rows = [(t.user_attrs["number"], t.state.name, t.params, t.intermediate_values, t.value) for t in stored]
    return sorted(rows, key=lambda row: row[0])


def trial(number: int) -> Trial:
    return Trial(number, {}, (0.5,), "complete", 0.0, 0.1)


def numbers(url: str) -> list[int]:
    return [number for number, *_ in trials_of(url)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, list[tuple[Any, ...]]]:
    """The search in a SQLite file."""
    file = tmp_path_factory.mktemp("uninterrupted") / "studies.db"
    dataset = StudyDataset(filepath=str(file), candidate="logistic")
    return search_candidate(make_task(), CANDIDATE, SearchSettings(trials=8), dataset.load()), trials_of(
        f"sqlite:///{file}"
    )


def assert_same(found: SearchResult, expected: SearchResult) -> None:
    assert found.candidates == expected.candidates
    assert {**found.report, "seconds": 0} == {**expected.report, "seconds": 0}
    for one, other in zip(found.predictions, expected.predictions, strict=True):
        pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))


def test_a_search_on_postgresql_is_the_one_in_a_file_and_is_not_repeated(
    url: str, uninterrupted: tuple[SearchResult, list[tuple[Any, ...]]], capfd: pytest.CaptureFixture[str]
) -> None:
    found = search(url)
    assert "study" not in capfd.readouterr().err, "Optuna is quiet"
    assert_same(found, uninterrupted[0])
    assert trials_of(url) == uninterrupted[1]
    assert optuna.get_all_study_names(url) == [f"telco.{found.report['study']}"]
    assert search(url).report == found.report
    assert trials_of(url) == uninterrupted[1]


KILLED = """
import sys, time
from tests.datasets import test_study_postgres as here
from churn_pipeline.modelling import cross_validation
plain = cross_validation.validate_fold
def slow(*args):
    time.sleep(0.05)
    return plain(*args)
cross_validation.validate_fold = slow
cross_validation.ROWS_FOR_THREADS = 0
print("ready", flush=True)
here.search(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("trials_before", [0, 4])
def test_a_killed_search_resumes_and_ends_like_an_uninterrupted_one(
    url: str, uninterrupted: tuple[SearchResult, list[tuple[Any, ...]]], trials_before: int
) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, url], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as reader:
            while process.poll() is None and _ended(reader) < trials_before:
                pass
            process.kill()
            process.wait()
            assert trials_before <= _ended(reader) < 8

    found = search(url)

    assert_same(found, uninterrupted[0])
    assert trials_of(url) == uninterrupted[1]


def _ended(reader: psycopg.Connection[Any]) -> int:
    try:
        row = reader.execute("SELECT count(*), pg_sleep(0.01) FROM trials WHERE state <> 'RUNNING'").fetchone()
    except psycopg.errors.UndefinedTable:
        return 0
    assert row is not None
    return int(row[0])


# ---- locks ---------------------------------------------------------------------------------------------------------


def test_two_processes_do_not_search_the_same_candidate(url: str) -> None:
    with studies(url).open("logistic-1", {}):
        with pytest.raises(DatasetError, match=r"Another process \(\d+ on .+\) is searching logistic on this table"):
            studies(url, "s3://other/place.db").open("logistic-1", {}).__enter__()
        with pytest.raises(DatasetError, match="is searching logistic"):
            studies(url).open("logistic-2", {}).__enter__()
        with studies(url, "s3://other/place.db").open("logistic-2", {}) as other:
            other.end(trial(0))
    with studies(url).open("logistic-1", {}) as again:
        assert again.ended() == {}


@pytest.mark.slow
def test_processes_that_start_at_once_create_the_tables_once(url: str) -> None:
    script = (
        "import sys; from tests.datasets import test_study_postgres as here; print('ready', flush=True); input()\n"
        "with here.studies(sys.argv[1], sys.argv[2]).open(sys.argv[2], {}) as study: study.end(here.trial(0))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, url, f"search-{number}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len(optuna.get_all_study_names(url)) == 4


# ---- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_continues_after_the_server_restarts(url: str, postgres: Servers) -> None:
    with studies(url).open("logistic-1", {}) as study:
        for number, mode in enumerate(("fast", "immediate")):
            study.end(trial(number))
            postgres.postgres.stop(mode)
            threading.Timer(2, postgres.start_postgres).start()
        study.end(trial(2))
        with pytest.raises(DatasetError, match="is searching logistic"):
            studies(url).open("logistic-1", {}).__enter__()
    assert numbers(url) == [0, 1, 2]


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_search_with_one_message(
    url: str, postgres: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_postgres, "RECONNECT_SECONDS", 0.5)
    with studies(url).open("logistic-1", {}) as study:
        study.end(trial(0))
        postgres.postgres.stop()
        try:
            with pytest.raises(ProjectError) as caught:
                study.end(trial(1))
        finally:
            postgres.start_postgres()
    message = str(actionable(caught.value))
    assert "cannot be used (connection failed" in message
    assert "run the same command again: the search continues" in message
    assert len(message.splitlines()) == 2
    with studies(url).open("logistic-1", {}) as study:
        assert list(study.ended()) == [0]


def test_another_search_that_took_over_is_noticed(url: str, postgres: Servers) -> None:
    with studies(url).open("logistic-1", {}) as study:
        study.end(trial(0))
        _drop_connections(postgres, url)
        with studies(url).open("logistic-1", {}) as other:
            other.end(trial(1))
            with pytest.raises(DatasetError, match="is searching logistic"):
                study.end(trial(1))
        study.end(trial(1))
        study.end(trial(2))
    assert numbers(url) == [0, 1, 2]


def _drop_connections(postgres: Servers, url: str) -> None:
    with closing(postgres.postgres.connect()) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [make_url(url).database]
        )


class Network:
    """Forwards connections to a server until it breaks: then clients lose their connections, but the server does not."""

    def __init__(self, port: int) -> None:
        self._port, self._sockets = port, list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.swallow_after: bytes | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [client, server]
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if to_server and self.swallow_after is not None and self.swallow_after in data:
                    self.swallow_after = None
                    target.sendall(data)
                    source.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
        except OSError:
            pass

    def drop(self) -> None:
        """Close the clients' side of all connections."""
        for client in self._sockets[::2]:
            client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            one.close()


@pytest.fixture
def network(url: str) -> Iterator[Network]:
    with closing(Network(make_url(url).port or 0)) as made:
        yield made


def test_a_search_behind_a_broken_network_is_not_locked_out_by_its_own_lost_connection(
    url: str, network: Network
) -> None:
    through = make_url(url).set(port=network.port).render_as_string()
    with studies(through).open("logistic-1", {}) as study:
        study.end(trial(0))
        network.drop()
        study.end(trial(1))
    assert numbers(url) == [0, 1]


def test_a_trial_whose_confirmation_was_lost_is_not_stored_twice(url: str, network: Network) -> None:
    through = make_url(url).set(port=network.port).render_as_string()
    with studies(through).open("logistic-1", {}) as study:
        study.end(trial(0))
        network.swallow_after = b"COMMIT"
        study.end(trial(1))
        assert network.swallow_after is None
        study.end(trial(2))
    assert numbers(url) == [0, 1, 2]


# ---- mistakes ------------------------------------------------------------------------------------------------------


def _closed_port(url: str) -> str:
    return make_url(url).set(port=1).render_as_string()


def _wrong_password(url: str) -> str:
    return make_url(url).set(password="se{cret}").render_as_string(hide_password=False)


def _no_database(url: str) -> str:
    return make_url(url).set(database="absent").render_as_string()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_closed_port, "connection to server at .* failed"),
        (_wrong_password, "password authentication failed"),
        (_no_database, 'database "absent" does not exist'),
    ],
)
def test_a_database_that_cannot_be_used_is_one_message_without_its_password(
    url: str, change: Callable[[str], str], reason: str
) -> None:
    with pytest.raises(ProjectError, match=reason) as caught:
        studies(change(url)).open("logistic-1", {}).__enter__()
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    assert "secret" not in message.replace("{", "").replace("}", "")


@pytest.mark.parametrize(
    "address", ["sqlite:///studies.db", "mysql://root:secret@host/db", "host/secret", "%(secret)s"]
)
def test_an_address_of_another_kind_is_refused_without_quoting_it(address: str) -> None:
    with pytest.raises(DatasetError, match="is not the address of a PostgreSQL database") as caught:
        StudyDataset.from_config(
            "studies",
            {
                "type": "churn_pipeline.datasets.StudyDataset",
                "filepath": "studies.db",
                "candidate": "a",
                "url": address,
            },
        )
    assert "secret" not in str(actionable(caught.value))


def test_studies_in_a_bucket_need_postgresql() -> None:
    with pytest.raises(DatasetError, match=r"A SQLite file cannot be used at s3://bucket/studies\.db: set `studies`"):
        StudyDataset(filepath="s3://bucket/studies.db", candidate="logistic").load()


def test_the_dataset_does_not_show_its_password() -> None:
    dataset = StudyDataset("studies.db", "logistic", "postgresql://churn:secret@host/churn", "telco")
    assert dataset.exists()
    assert "host/churn" in str(dataset)
    assert "secret" not in str(dataset)


def test_a_role_that_may_only_read_and_write_rows_searches(url: str, postgres: Servers) -> None:
    with studies(url).open("logistic-1", {}):
        pass
    database = str(make_url(url).database)
    with closing(postgres.postgres.connect(database)) as admin:
        admin.execute("CREATE ROLE searcher LOGIN PASSWORD 'word'")
        admin.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO searcher").format(sql.Identifier(database)))
        admin.execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO searcher")
        admin.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO searcher")
        try:
            least = make_url(url).set(username="searcher", password="word").render_as_string(hide_password=False)
            assert search(least, 3).report["trials"] == 3
        finally:
            admin.execute("DROP OWNED BY searcher")
            admin.execute("DROP ROLE searcher")
