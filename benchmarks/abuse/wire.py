"""HTTP/1.1 on raw connections, because an attacker does what no client library allows. Imports little: it starts quickly."""

import asyncio
import re
import socket
from typing import Self

HOST = "127.0.0.1"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Outcomes beside a status: no process listens, the connection closed without an answer, and no answer within the time limit.
REFUSED, LOST, NO_ANSWER = "refused", "lost", "no answer"
LINUX_ESTABLISHED = 1
SMALL_BUFFER = 4096


def request(path: str, body: bytes = b"", key: str | None = None) -> bytes:
    """The bytes of a request: POST with a body, else GET."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"Host: {HOST}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    """A connection that sends requests and reads their answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int, address: str = HOST) -> Self:
        """Connect from a local address; on Linux, every 127.x.y.z is one."""
        return cls(*await asyncio.open_connection(HOST, port, local_addr=(address, 0)))

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return not (self._reader.at_eof() or self.writer.is_closing())

    def close(self) -> None:
        """Close at once, without waiting for unsent bytes."""
        self.writer.transport.abort()

    async def ask(self, content: bytes) -> str:
        """Send a request and return the status of its answer."""
        self.writer.write(content)
        await self.writer.drain()
        return await self.answer()

    async def answer(self) -> str:
        """Read an answer and return its status.

        Raises
        ------
        ConnectionError, asyncio.IncompleteReadError
            If the connection closes before the end of the answer.
        """
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        await self._reader.readexactly(int(length[1]) if length else 0)
        if b"\r\nconnection: close" in head.lower():
            self.writer.close()
        return head[9:12].decode()


async def connect_unread(port: int, address: str) -> socket.socket:
    """Connect a socket that receives as little as possible, for answers that are never read."""
    loop = asyncio.get_running_loop()
    one = socket.socket()
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    one.bind((address, 0))
    await loop.sock_connect(one, (HOST, port))
    return one


async def wait_until_closed(one: socket.socket) -> None:
    """Wait until the service closes a connection whose answers are not read. Reads the state of the socket (Linux)."""
    while one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == LINUX_ESTABLISHED:
        await asyncio.sleep(0.2)
