"""One attack: the victim before it, during it, and when the service gets SIGTERM while it goes on."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.abuse.attacks import ATTACKS, Attack
from benchmarks.abuse.services import Attacked, example_customer
from benchmarks.abuse.victim import Outcome, constant_rate
from benchmarks.abuse.wire import LOST, NO_ANSWER, REFUSED, request
from benchmarks.common import ROOT
from benchmarks.serving_peers.processes import Running, running

WARM_SECONDS = 1.0
SIGTERM_SECONDS = 3.0  # how long the victim goes on after SIGTERM
MAX_RATIO = 5.0  # of the victim's p99 to its quiet p99
GONE_SECONDS = 15.0  # time limit of a request, and draining, with a margin
MAX_GONE_SECONDS = 30.0  # then the service is killed
MIB = 2**20


class Attacker:
    """The process of an attacker that is at work."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def answers(self) -> Counter[str]:
        """The answers that it got so far, by status."""
        assert self._process.stdin, "piped"
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Counter(json.loads(_line(self._process)))


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout, "piped"
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("the attacker ended: see its error above")
    return line


@contextmanager
def attacking(name: str, target: Mapping[str, Any]) -> Iterator[Attacker]:
    """Start an attack, wait until it is at work, and end it."""
    command = [sys.executable, "-m", "benchmarks.abuse.attacker", name]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin, "piped"
        try:
            process.stdin.write(json.dumps(target) + "\n")
            process.stdin.flush()
            _line(process)
            yield Attacker(process)
        finally:
            process.kill()


class Usage:
    """What the service, the attacker and the rest of the machine use while a caller measures."""

    def __init__(self, service: Running, attacker: Attacker) -> None:
        self._service = service
        self._attacker = psutil.Process(attacker.pid)
        self._parent = psutil.Process(service.process.pid)
        self._begin, self._at = self._used(), time.perf_counter()
        psutil.cpu_percent()  # the next call covers the time since this one
        self.mib = 0.0

    def _used(self) -> dict[psutil.Process, float]:
        ours = [psutil.Process(), self._attacker, self._parent, *self._parent.children(recursive=True)]
        return {one: float(sum(one.cpu_times()[:2])) for one in ours if _is_alive(one)}

    async def watch(self) -> None:
        """Record the largest resident memory of the service's processes, five times a second."""
        while True:
            self.mib = max(self.mib, self._service.resident())
            await asyncio.sleep(0.2)

    def cores(self) -> tuple[float, float]:
        """Cores used by the attacker and by foreign processes since the start."""
        everything = psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1)
        seconds = time.perf_counter() - self._at
        used = {one: (after - self._begin.get(one, 0.0)) / seconds for one, after in self._used().items()}
        return used[self._attacker], max(0.0, everything - sum(used.values()))


@dataclass(frozen=True)
class Result:
    """Measurements of one attack.

    Attributes
    ----------
    attack
        The attack.
    quiet, under, ending
        The victim's requests before the attack, during it, and after SIGTERM.
    attacker
        The attacker's answers by status.
    attacker_cores, foreign_cores
        Cores used during the attack by the attacker, and by processes that have no part in the measurement.
    mib
        Largest resident memory of a process of the service, in MiB.
    gone
        Seconds from SIGTERM to the end of all processes; infinity above `MAX_GONE_SECONDS`.
    """

    attack: Attack
    quiet: Outcome
    under: Outcome
    ending: Outcome
    attacker: Counter[str]
    attacker_cores: float
    foreign_cores: float
    mib: float
    gone: float

    @property
    def ratio(self) -> float:
        """The victim's p99 under attack as a multiple of its quiet p99."""
        return self.under.milliseconds(99) / self.quiet.milliseconds(99)

    def missed(self) -> list[str]:
        """The aims that were not met."""
        statuses = self.under.statuses
        lost = sum(statuses[one] for one in (LOST, NO_ANSWER, REFUSED))
        failures = {
            "p99": self.ratio > MAX_RATIO,
            "5xx": any(status.startswith("5") for status in statuses),
            "4xx": any(status.startswith("4") for status in statuses),
            "lost": lost > 0 and not self.attack.kills_worker,  # a killed worker cannot answer
            "shutdown": self.gone > GONE_SECONDS,
        }
        return [name for name, failed in failures.items() if failed]


def measure(name: str, attacked: Attacked, rate: float, seconds: float) -> Result:
    """Measure one attack on a service of its own."""
    attack = ATTACKS[name]
    with (
        tempfile.TemporaryDirectory() as folder,
        running(attacked.with_settings(attack.environment), Path(folder)) as service,
    ):
        _wait_for_workers(service, int(attack.environment.get("CHURN_SERVING_WORKERS", 1)))
        customer = example_customer(service.port)
        return asyncio.run(_measure(name, attacked, service, customer, (rate, seconds)))


def _wait_for_workers(service: Running, number: int) -> None:
    while len(service.workers()) < number:
        time.sleep(0.1)


async def _measure(
    name: str, attacked: Attacked, service: Running, customer: Mapping[str, Any], load: tuple[float, float]
) -> Result:
    attack, body = ATTACKS[name], json.dumps({"customers": [customer]}).encode()
    quietly, under_attack = (request("/predict", body, key) for key in (attacked.quiet_key, attacked.victim_key))
    port, (rate, seconds) = service.port, load
    await constant_rate(port, quietly, rate, WARM_SECONDS)
    quiet = await constant_rate(port, quietly, rate, seconds)
    with attacking(name, {"port": port, "key": attacked.attacker_key, "customer": customer}) as attacker:
        usage = Usage(service, attacker)
        watching = asyncio.create_task(usage.watch())
        if attack.kills_worker:
            asyncio.get_running_loop().call_later(seconds / 3, service.workers()[0].kill)
        under = await constant_rate(port, under_attack, rate, seconds)
        watching.cancel()
        answers, cores = attacker.answers(), usage.cores()
        processes = psutil.Process(service.process.pid).children(recursive=True)
        service.process.send_signal(signal.SIGTERM)
        gone, ending = await asyncio.gather(
            asyncio.to_thread(_seconds_until_gone, service, processes),
            constant_rate(port, under_attack, rate, SIGTERM_SECONDS),
        )
    return Result(attack, quiet, under, ending, answers, *cores, usage.mib, gone)


def _seconds_until_gone(service: Running, processes: Sequence[psutil.Process]) -> float:
    """Seconds until the service and all its processes have ended; the ones that remain are killed at the limit."""
    begin = time.perf_counter()
    while service.process.poll() is None or any(_is_alive(one) for one in processes):
        if time.perf_counter() - begin > MAX_GONE_SECONDS:
            service.process.kill()
            for one in processes:
                if _is_alive(one):
                    one.kill()
            return float("inf")
        time.sleep(0.02)
    return time.perf_counter() - begin


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
