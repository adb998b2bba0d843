"""A TCP proxy between the project and a server, which can refuse, delay or cut connections, or answer 503."""

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Literal

HOST = "127.0.0.1"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CHUNK = 2**16
Mode = Literal["pass", "refuse", "503"]


class Proxy:
    """Passes connections on to a port of this machine; a context manager.

    Attributes
    ----------
    mode
        ``pass``; ``refuse`` closes each connection at once; ``503`` answers each HTTP request with that status.
    delay
        Seconds that each packet to the server waits.
    """

    def __init__(self, target: int) -> None:
        self.mode: Mode = "pass"
        self.delay, self._target = 0.0, target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._serve, HOST, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._server.close()
        self.change("refuse")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def change(self, mode: Mode) -> None:
        """Change the mode, and cut the open connections."""
        self.mode = mode
        self._run(self._cut())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mode == "503":
                await reader.read(CHUNK)
                writer.write(UNAVAILABLE)
                await writer.drain()
            elif self.mode == "pass":
                inner_reader, inner_writer = await asyncio.open_connection(HOST, self._target)
                self._writers.add(inner_writer)
                await asyncio.gather(self._pump(reader, inner_writer, True), self._pump(inner_reader, writer, False))
        except OSError:
            pass  # one side closed the connection
        finally:
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_request: bool) -> None:
        while data := await reader.read(CHUNK):
            if is_request:
                await asyncio.sleep(self.delay)
            writer.write(data)
            await writer.drain()
        writer.close()
