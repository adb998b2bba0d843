"""Malformed requests as raw bytes, drawn at random from a seed.

Invalid parts contain `WORD` or `DIGITS`, so that a test can search answers and logs for leaked values.
"""

import gzip
import json
import pickle
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

WORD, DIGITS = "Qx7wZk3", "739173917391"

Headers = list[tuple[str, str]]
# A customer as JSON text by column, because JSON text can be malformed and a dict cannot.
Cells = list[tuple[str, str]]

ODD = (
    "null",
    "true",
    '""',
    '"  "',
    "[]",
    "{}",
    f'"{WORD}"',
    f'["{WORD}"]',
    f'{{"{WORD}": "{WORD}"}}',
    DIGITS,
    f"-{DIGITS}.5",
    f'"{DIGITS}"',
    f"{DIGITS}e300",
    "1e400",
    "-1e400",
    "1e-400",
    "-0.0",
    "9223372036854775808",
    f"{DIGITS}" * 400,
    f"0.{DIGITS * 400}",
    "NaN",
    "Infinity",
    "-Infinity",
    f"0x{DIGITS}",
    f"0{DIGITS}",
    f"+{DIGITS}",
    f"{DIGITS}.",
    f'"{WORD}\\u0000"',
    f'"{WORD}\\ud800"',
    f'"{WORD}\\x"',
    f'"{WORD}\n"',
    f"'{WORD}'",
    f'"{WORD * 20_000}"',
    f'"{WORD}\u202e\U0001f600"',
    f'"{WORD}" "{WORD}"',
    "[" * 300 + "]" * 300,
    '{"a":' * 300 + "1" + "}" * 300,
    f"[{DIGITS}" * 20_000,
)
MEDIA_TYPES = (
    "text/csv",
    "text/plain",
    "application/xml",
    "application/octet-stream",
    "application/vnd.bentoml+pickle",
    "multipart/form-data; boundary=x",
    "application/x-www-form-urlencoded",
    "application/json; charset=utf-16",
    "application/json, application/json",
    f"application/{WORD}",
    "",
    "\xff\xfe",
)
METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "PO ST", WORD, "BREW")
TARGETS = (
    "/",
    "//predict",
    "/predict/",
    "/predict//",
    "/PREDICT",
    "/%70redict",
    "/predict%00",
    "/%ff%fe",
    "/predict\\..",
    "/../../etc/passwd",
    "/static/../service.py",
    "/static/%2e%2e/service.py",
    "/static/",
    f"/{WORD}",
    f"/predict?{WORD}={DIGITS}",
    f"/predict#{WORD}",
    f"http://{WORD}/predict",
    "*",
    "predict",
    "/" + "a" * 60_000,
    "/explain/%7B%7B7*7%7D%7D",
    "/docs.json?x=%",
    "/metrics/..",
    "/\u00e9",
)
HEADERS: Sequence[Headers] = (
    [("Content-Length", "-1")],
    [("Content-Length", WORD)],
    [("Content-Length", "9" * 30)],
    [("Content-Length", "+5")],
    [("Content-Length", "5"), ("Content-Length", "6")],
    [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
    [("Transfer-Encoding", WORD)],
    [("Transfer-Encoding", "chunked, chunked")],
    [("Expect", WORD)],
    [("Host", "a"), ("Host", "b")],
    [("X-Request-ID", f"{WORD} {WORD}")],
    [("X-Request-ID", "\xff" * 20)],
    [("X-Request-ID", "a" * 5000)],
    [(f"X-{WORD}", "a" * 70_000)],
    [(f"X-{number}", WORD) for number in range(2000)],
    [(f"X {WORD}", WORD)],
    [("", WORD)],
    [("X-Nul", f"{WORD}\0{WORD}")],
    [("Cookie", f"{WORD}={DIGITS}; " * 50)],
    [("X-Forwarded-For", f"{WORD}, {WORD}")],
    [("Forwarded", f'for="[{WORD}"')],
    [("Accept", WORD), ("Accept-Encoding", WORD), ("Accept-Charset", WORD)],
    [("traceparent", f"00-{DIGITS}-{DIGITS}-01"), ("b3", WORD), ("baggage", f"{WORD}={DIGITS}")],
    [("Origin", f"http://{WORD}"), ("Access-Control-Request-Method", WORD)],
    [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", WORD)],
    [("Upgrade", "h2c"), ("HTTP2-Settings", WORD)],
    [("Range", f"bytes={DIGITS}-"), ("If-None-Match", WORD)],
    [("X-HTTP-Method-Override", "DELETE")],
)
KEYS = (
    None,
    f"Bearer {WORD}",
    "Bearer",
    "Bearer  ",
    f"Basic {WORD}",
    "Bearer \xff\xfe",
    f"Bearer {WORD * 1000}",
    f"{WORD}",
    "bearer\tx",
)


@dataclass
class Sent:
    """A request.

    Attributes
    ----------
    kind
        Kind of mutation.
    hang_up
        Whether the client closes the connection early, because the headers announce more than is sent.
    """

    kind: str = ""
    method: str = "POST"
    target: str = "/predict"
    headers: Headers = field(default_factory=list)
    key: str | None = None
    media_type: str = "application/json"
    body: bytes = b""
    version: str = "HTTP/1.1"
    chunks: tuple[bytes, ...] | None = None
    hang_up: bool = False

    def wire(self) -> bytes:
        """The request as raw bytes."""
        headers: Headers = [("Host", "127.0.0.1"), ("Connection", "close"), ("Content-Type", self.media_type)]
        if self.key is not None:
            headers.append(("Authorization", self.key))
        if self.chunks is not None:
            headers.append(("Transfer-Encoding", "chunked"))
        elif not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in self.headers):
            headers.append(("Content-Length", str(len(self.body))))
        lines = [
            f"{self.method} {self.target} {self.version}",
            *(f"{name}: {value}" for name, value in headers + self.headers),
        ]
        head = "\r\n".join(lines).encode("latin-1")
        return head + b"\r\n\r\n" + (self.body if self.chunks is None else b"".join(self.chunks))


class Mutations:
    """Draws requests.

    Parameters
    ----------
    customer
        A valid customer with all its features.
    key
        A valid API key.
    seed
        The same seed gives the same requests.
    """

    def __init__(self, customer: dict[str, Any], key: str, seed: int) -> None:
        self._customer = [(name, json.dumps(value)) for name, value in customer.items()]
        self._key = f"Bearer {key}"
        self._random = random.Random(seed)
        self.kinds: dict[str, Callable[[Sent], None]] = {
            name.removeprefix("_make_"): getattr(self, name) for name in dir(self) if name.startswith("_make_")
        }

    def draw(self, kind: str | None = None) -> Sent:
        """Draw a request, of a random kind by default."""
        kind = kind or self._random.choice(list(self.kinds))
        sent = Sent(kind, key=self._key, target=self._random.choice(("/predict", "/predict", "/explain")))
        sent.body = self._body(self._customers())
        self.kinds[kind](sent)
        return sent

    def _customers(self) -> list[Cells]:
        return [list(self._customer) for _ in range(self._random.choice((1, 1, 1, 2, 7)))]

    def _body(self, customers: Sequence[Cells]) -> bytes:
        texts = ["{" + ", ".join(f'"{name}": {value}' for name, value in cells) + "}" for cells in customers]
        return f'{{"customers": [{", ".join(texts)}]}}'.encode("utf-8", "surrogatepass")

    def _odd(self) -> str:
        return self._random.choice(ODD)

    def _edited(self, sent: Sent, edit: Callable[[Cells], None]) -> None:
        customers = self._customers()
        edit(self._random.choice(customers))
        sent.body = self._body(customers)

    def _make_untouched(self, sent: Sent) -> None:
        """No mutation: this request must be accepted."""

    def _make_odd_values(self, sent: Sent) -> None:
        def edit(cells: Cells) -> None:
            for _ in range(self._random.randint(1, 3)):
                place = self._random.randrange(len(cells))
                cells[place] = (cells[place][0], self._odd())

        self._edited(sent, edit)

    def _make_unknown_field(self, sent: Sent) -> None:
        name = self._random.choice((WORD, "", "\\u0000", "__class__", WORD * 5000, "\\ud800", DIGITS))
        self._edited(sent, lambda cells: cells.insert(0, (name, self._odd())))

    def _make_left_out(self, sent: Sent) -> None:
        self._edited(sent, lambda cells: cells.pop(self._random.randrange(len(cells))) and None)

    def _make_twice(self, sent: Sent) -> None:
        self._edited(sent, lambda cells: cells.append((self._random.choice(cells)[0], self._odd())))

    def _make_other_top(self, sent: Sent) -> None:
        tops = (self._odd(), "", " ", "\n", f'{{"customers": {self._odd()}}}', f'{{"customers": [{self._odd()}]}}')
        more = (
            f'{{"customers": [], "{WORD}": {self._odd()}}}',
            f'{{"customers": [{{}}], "customers": {self._odd()}}}',
            f"[{sent.body.decode()}]",
            f"{sent.body.decode()}{sent.body.decode()}",
        )
        sent.body = self._random.choice((*tops, *more)).encode("utf-8", "surrogatepass")

    def _make_other_option(self, sent: Sent) -> None:
        option = self._random.choice(("top", "max_rows", WORD))
        sent.body = sent.body[:-1] + f', "{option}": {self._odd()}}}'.encode("utf-8", "surrogatepass")

    def _make_truncated(self, sent: Sent) -> None:
        sent.body = sent.body[: self._random.randrange(len(sent.body))]

    def _make_flipped_bytes(self, sent: Sent) -> None:
        body = bytearray(sent.body)
        for _ in range(self._random.randint(1, 8)):
            body[self._random.randrange(len(body))] = self._random.randrange(256)
        sent.body = bytes(body)

    def _make_noise(self, sent: Sent) -> None:
        sent.body = self._random.randbytes(self._random.choice((1, 10, 1000, 50_000)))

    def _make_deep(self, sent: Sent) -> None:
        depth = self._random.choice((100, 5000, 200_000))
        opened, closed = self._random.choice(((b"[", b"]"), (b'{"customers":', b"}"), (b'{"customers":[', b"]}")))
        sent.body = opened * depth + b"1" + closed * self._random.choice((depth, 0))

    def _make_other_encoding(self, sent: Sent) -> None:
        text = sent.body.decode()
        sent.body = self._random.choice(
            (
                text.encode("utf-16"),
                text.encode("utf-32"),
                text.encode("utf-8-sig"),
                text.replace("customers", "c\xfcstomers").encode("latin-1"),
                text.replace(" ", "\x00").encode(),
                sent.body[:-2] + b"\xc0\xaf\xed\xa0\x80" + sent.body[-2:],
            )
        )

    def _make_compressed(self, sent: Sent) -> None:
        packed = self._random.choice((gzip.compress(sent.body), zlib.compress(sent.body), gzip.compress(bytes(10**7))))
        sent.body = packed
        encoding = self._random.choice(("gzip", "deflate", "br", "gzip, gzip", "identity", WORD, None))
        if encoding is not None:
            sent.headers = [("Content-Encoding", encoding)]

    def _make_chunked(self, sent: Sent) -> None:
        middle = self._random.randrange(1, len(sent.body))
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (sent.body[:middle], sent.body[middle:])]
        end = self._random.choice(
            (b"0\r\n\r\n", b"0\r\n" + WORD.encode() + b": 1\r\n\r\n", b"-1\r\n\r\n", b"zz\r\n\r\n", b"f" * 40)
        )
        sent.chunks = (*parts, end)

    def _make_media_type(self, sent: Sent) -> None:
        sent.media_type = self._random.choice(MEDIA_TYPES)

    def _make_pickle(self, sent: Sent) -> None:
        sent.body = pickle.dumps({"customers": [{WORD: DIGITS}]}, protocol=self._random.randint(0, 5))
        sent.media_type = self._random.choice(("application/json", "application/vnd.bentoml+pickle"))

    def _make_method(self, sent: Sent) -> None:
        sent.method = self._random.choice(METHODS)

    def _make_target(self, sent: Sent) -> None:
        sent.target = self._random.choice(TARGETS)
        sent.method = self._random.choice(("POST", "GET"))

    def _make_headers(self, sent: Sent) -> None:
        sent.headers = self._random.choice(HEADERS)
        sent.hang_up = True

    def _make_version(self, sent: Sent) -> None:
        sent.version = self._random.choice(("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "HTTPS/1.1", "", WORD))

    def _make_key(self, sent: Sent) -> None:
        sent.key = self._random.choice(KEYS)

    def _make_short_body(self, sent: Sent) -> None:
        sent.headers = [("Content-Length", str(len(sent.body) + self._random.choice((1, 1000, 10**7))))]
        sent.hang_up = True

    def _make_many_rows(self, sent: Sent) -> None:
        row = self._random.choice((b"{}", b"1", b"null", b'{"' + WORD.encode() + b'":1}', sent.body[15:-2]))
        count = (
            self._random.choice((101, 1000)) if self._random.random() < 0.9 else self._random.choice((10_000, 100_000))
        )
        sent.body = b'{"customers": [' + b",".join([row] * count) + b"]}"

    def _make_many_columns(self, sent: Sent) -> None:
        count = self._random.choice((100, 2_000)) if self._random.random() < 0.9 else 500_000
        columns = ",".join(f'"{WORD}{number}":{DIGITS}' for number in range(count))
        sent.body = f'{{"customers": [{{{columns}}}]}}'.encode()
