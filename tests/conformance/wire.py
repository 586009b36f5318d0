"""HTTP/1.1 by hand: the bytes of a request go out as they are written, and nothing of the answer is touched up."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE = 60  # seconds to wait for a connection and for each part of an answer


@dataclass(frozen=True)
class Answer:
    """What came back: the status, the headers by their names in lower case, and the body's bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


def exchange(
    url: str, method: str, target: str, body: bytes | None = None, headers: Sequence[tuple[str, str]] = ()
) -> Answer:
    """Send one request on a connection of its own and read the answer to its end.

    `target` goes into the request line as it stands. A body is announced by its length unless `headers` say how.
    """
    address = urlsplit(url)
    sent = {name.lower() for name, _ in headers}
    lines = [f"{method} {target} HTTP/1.1", f"Host: {address.netloc}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None and "transfer-encoding" not in sent:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=PATIENCE) as connection:
        connection.sendall(head + (body or b""))
        return _read(_all_of(connection), has_body=method != "HEAD")


def chunked(body: bytes, size: int = 7) -> bytes:
    """The body in pieces, as `Transfer-Encoding: chunked` has it."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def _all_of(connection: socket.socket) -> bytes:
    received = bytearray()
    while piece := connection.recv(65536):
        received += piece
    return bytes(received)


def _read(received: bytes, *, has_body: bool) -> Answer:
    head, _, rest = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    status = int(status_line.split(" ", 2)[1])
    if status == 100:  # Continue: the answer itself follows
        return _read(rest, has_body=has_body)
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        rest = _unchunked(rest)
    elif has_body and "content-length" in headers:
        assert len(rest) == int(headers["content-length"]), "the answer is not as long as it says"
    return Answer(status, headers, rest)


def _unchunked(rest: bytes) -> bytes:
    body = bytearray()
    while True:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return bytes(body)
        body += rest[:size]
        rest = rest[size + 2 :]
