"""The abuse suite: it measures a real service under an attack, and its table names every aim that is missed."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.abuse import victim
from benchmarks.abuse.__main__ import attack_all
from benchmarks.abuse.attacks import ATTACKS, Target
from benchmarks.abuse.measure import Result
from benchmarks.abuse.victim import Outcome, constant_rate
from benchmarks.abuse.wire import LOST, NO_ANSWER, REFUSED, request
from tests.serving.running import free_port

QUIET = Outcome([0.001] * 100, Counter({"200": 100}))


def result(name: str = "none", under: Outcome = QUIET, gone: float = 2.0) -> Result:
    return Result(ATTACKS[name], QUIET, under, QUIET, Counter(), 0.0, 0.0, 100.0, gone)


def test_the_table_of_one_attack(bundle_folder: Path) -> None:
    table = attack_all(["flood_many_addresses"], bundle_folder, rate=20, seconds=1)
    [row] = table.to_dict("records")
    assert "401: " in row["attacker's answers"]
    assert row["victim's answers"] == "200: 20"
    assert float(row["p99, ms"]) > 0
    assert float(row["MiB"]) > 10
    assert float(row["ended after SIGTERM, s"]) > 0
    assert "200: " in row["victim's answers after SIGTERM"]


@pytest.mark.parametrize(
    ("missed", "given"),
    [
        ([], result()),
        (["p99"], result(under=Outcome([0.0051] * 100, Counter({"200": 100})))),
        (["5xx", "4xx"], result(under=Outcome([0.001], Counter({"503": 1, "429": 1})))),
        (["lost"], result(under=Outcome([0.001], Counter({"200": 1, LOST: 1})))),
        ([], result("killed_worker", under=Outcome([0.001], Counter({"200": 1, LOST: 1})))),
        (["shutdown"], result(gone=float("inf"))),
    ],
)
def test_every_missed_aim_is_named(missed: list[str], given: Result) -> None:
    assert given.missed() == missed


def test_the_victim_counts_every_request_and_measures_from_its_due_time() -> None:
    async def story() -> tuple[Outcome, Outcome]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in range(10):
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.05)
                status = b"200 OK" if number % 2 else b"503 Busy"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            answered = await constant_rate(port, request("/"), rate=10, seconds=1)
        return answered, await constant_rate(free_port(), request("/"), rate=100, seconds=0.1)

    answered, refused = asyncio.run(story())
    assert answered.statuses == {"200": 5, "503": 5}
    assert min(answered.seconds) >= 0.05
    assert refused.statuses == {REFUSED: 10}


def test_a_victim_without_an_answer_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(victim, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(victim, "CONNECTIONS", 1)

    async def story() -> Outcome:
        hung = asyncio.Event()

        async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hung.wait()
            writer.close()

        async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
            outcome = await constant_rate(server.sockets[0].getsockname()[1], request("/"), rate=20, seconds=0.1)
            hung.set()
        return outcome

    outcome = asyncio.run(story())
    assert outcome.statuses == {NO_ANSWER: 2}  # the second one never got the only connection
    assert min(outcome.seconds) >= 0.2


def test_each_attack_is_made_of_tasks_that_run_until_they_are_cancelled(unused_port: int) -> None:
    async def story() -> dict[str, bool]:
        ended = {}
        for name, attack in ATTACKS.items():
            tasks = [asyncio.create_task(one) for one in attack.tasks(Target(unused_port, "key", {"months": 1}))]
            await asyncio.sleep(0)
            await asyncio.wait(tasks, timeout=0.05) if tasks else None
            ended[name] = any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return ended

    assert not any(asyncio.run(story()).values())


@pytest.fixture
def unused_port() -> int:
    return free_port()
