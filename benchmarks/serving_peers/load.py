"""Load: closed by wrk, where a connection waits for its answer; open at a constant rate, where nothing waits."""

import gc
import json
import re
import select
import shutil
import socket
import subprocess
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.serving_peers.processes import Running

SCRIPT = Path(__file__).with_name("post.lua")
CONNECTIONS = 48
REFUSED, LOST = "refused", "lost"  # nobody listens; a connection that ends without an answer
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Closed:
    """What wrk measured; times in seconds."""

    rate: float
    p50: float
    p99: float


def wrk(running: Running, bodies: Path, connections: int, seconds: float) -> Closed:
    """Ask as fast as answers come, over so many connections.

    Raises
    ------
    RuntimeError
        When wrk is missing, or a request failed: what is measured then is no throughput.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is missing: install it (Debian: apt install wrk)")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(SCRIPT), running.url]
    key = [running.service.key] if running.service.key else []
    done = subprocess.run([*words, "--", str(bodies), *key], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    if told["failed"] or not told["requests"]:
        raise RuntimeError(f"{running.url}: {told}\n{running.output.read_text(errors='replace')[-2000:]}")
    return Closed(told["requests"] / told["seconds"], told["p50"], told["p99"])


@dataclass
class Open:
    """What a constant rate met: seconds from when a request was due to its answer's last byte, and answers by status."""

    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.statuses.total() - self.statuses["200"]

    def milliseconds(self, *percentiles: float) -> list[float]:
        return [float(value) * 1000 for value in np.percentile(np.frombuffer(self.seconds), percentiles)]


class _Connection:
    """A connection with one request on its way at most; it is made anew where the other side has closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.due = 0.0
        self._socket: socket.socket | None = None
        self._answer = b""

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket else -1

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket, self._answer = None, b""

    def send(self, request: bytes, due: float) -> str | None:
        """Send a request, unless nobody listens or the connection breaks: then that is told."""
        self.due = due
        if self._socket and select.select([self._socket], (), (), 0)[0]:  # closed while it was idle
            self.close()
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self.port))
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setblocking(False)
            self._socket.sendall(request)
        except ConnectionRefusedError:
            return REFUSED
        except ConnectionError:
            self.close()
            return LOST
        return None

    def read(self) -> str | None:
        """The answer's status, once it is there as a whole; `LOST` where it will not come."""
        assert self._socket is not None, "nothing was sent"
        try:
            part = self._socket.recv(65_536)
        except ConnectionError:
            part = b""
        if not part:
            self.close()
            return LOST
        self._answer += part
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return None
        self._answer = b""
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return head[9:12].decode()


def open_loop(running: Running, bodies: Sequence[bytes], rate: float, seconds: float) -> Open:
    """Ask at a constant rate, whatever comes back.

    A request is due at its time on the schedule and its latency counts from there, so that an answer which is late makes the
    requests late that wait for its connection, and none of that is left out.
    """
    requests = [_request(running, body) for body in bodies]
    idle = deque(_Connection(running.port) for _ in range(CONNECTIONS))
    busy: dict[_Connection, None] = {}
    told, sent, total = Open(), 0, int(rate * seconds)
    gc.disable()
    begin = time.perf_counter()
    try:
        while sent < total or busy:
            now = time.perf_counter() - begin
            while idle and sent < total and sent / rate <= now:
                connection = idle.popleft()
                failed = connection.send(requests[sent % len(requests)], sent / rate)
                if failed:
                    told.statuses[failed] += 1
                    idle.append(connection)
                else:
                    busy[connection] = None
                sent += 1
            wait = max(0.0, sent / rate - now) if idle and sent < total else 1.0
            for connection in select.select(busy, (), (), wait)[0]:
                status = connection.read()
                if status is not None:
                    told.seconds.append(time.perf_counter() - begin - connection.due)
                    told.statuses[status] += 1
                    del busy[connection]
                    idle.append(connection)
    finally:
        gc.enable()
        for connection in [*idle, *busy]:
            connection.close()
    return told


def _request(running: Running, body: bytes) -> bytes:
    key = f"Authorization: Bearer {running.service.key}\r\n" if running.service.key else ""
    head = f"POST {running.service.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{key}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
