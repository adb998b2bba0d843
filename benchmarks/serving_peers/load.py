"""Load generators: closed-loop with wrk, and open-loop at a constant rate."""

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
REFUSED, LOST = "refused", "lost"  # no process listens; the connection closed without an answer
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Closed:
    """What wrk measured; times in seconds."""

    rate: float
    p50: float
    p99: float


def wrk(running: Running, bodies: Path, connections: int, seconds: float) -> Closed:
    """Closed-loop load: each connection sends its next request as soon as it has an answer.

    Raises
    ------
    RuntimeError
        If wrk is missing, or a request failed: then the rate would not be a throughput.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is missing: install it (Debian: apt install wrk)")
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "-s", str(SCRIPT), running.url]
    key = [running.service.key] if running.service.key else []
    done = subprocess.run([*words, "--", str(bodies), *key], check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    if summary["failed"] or not summary["requests"]:
        raise RuntimeError(f"{running.url}: {summary}\n{running.output.read_text(errors='replace')[-2000:]}")
    return Closed(summary["requests"] / summary["seconds"], summary["p50"], summary["p99"])


@dataclass
class Open:
    """Result of a constant rate: seconds from the due time of a request to the end of its answer, and answers by status."""

    seconds: "array[float]" = field(default_factory=lambda: array("d"))
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.statuses.total() - self.statuses["200"]

    def milliseconds(self, *percentiles: float) -> list[float]:
        return [float(value) * 1000 for value in np.percentile(np.frombuffer(self.seconds), percentiles)]


class _Connection:
    """A connection with at most one request in progress. It reconnects if the server has closed it."""

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
        """Send a request. Return `REFUSED` or `LOST` if that fails, else None."""
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
        """Status of the answer once it is complete; None until then; `LOST` if the connection closed."""
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
    """Open-loop load: send at a constant rate, independently of the answers.

    The latency of a request counts from its scheduled time. It includes waiting for a connection that a late answer still uses.
    """
    requests = [_request(running, body) for body in bodies]
    idle = deque(_Connection(running.port) for _ in range(CONNECTIONS))
    busy: dict[_Connection, None] = {}
    result, sent, total = Open(), 0, int(rate * seconds)
    gc.disable()
    begin = time.perf_counter()
    try:
        while sent < total or busy:
            now = time.perf_counter() - begin
            while idle and sent < total and sent / rate <= now:
                connection = idle.popleft()
                failed = connection.send(requests[sent % len(requests)], sent / rate)
                if failed:
                    result.statuses[failed] += 1
                    idle.append(connection)
                else:
                    busy[connection] = None
                sent += 1
            wait = max(0.0, sent / rate - now) if idle and sent < total else 1.0
            for connection in select.select(busy, (), (), wait)[0]:
                status = connection.read()
                if status is not None:
                    result.seconds.append(time.perf_counter() - begin - connection.due)
                    result.statuses[status] += 1
                    del busy[connection]
                    idle.append(connection)
    finally:
        gc.enable()
        for connection in [*idle, *busy]:
            connection.close()
    return result


def _request(running: Running, body: bytes) -> bytes:
    key = f"Authorization: Bearer {running.service.key}\r\n" if running.service.key else ""
    head = f"POST {running.service.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{key}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
