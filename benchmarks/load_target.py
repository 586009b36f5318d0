"""What a load is aimed at, and what comes of it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np


class LoadError(ValueError):
    """A load that this program does not make, or a server that is not there."""


@dataclass(frozen=True)
class Target:
    """Where the requests go and what they are: the bodies are sent in turn, each answer has to be 200 and hold `has`.

    Raises `LoadError` for an address that is not this machine's own.
    """

    url: str
    bodies: tuple[bytes, ...]
    has: bytes = b""
    address: tuple[str, int] = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or not self.bodies:
            raise LoadError(f"{self.url!r}: expected http://127.0.0.1:PORT/PATH and at least one body")
        object.__setattr__(self, "address", (loopback(parts.hostname), parts.port or 80))

    def requests(self) -> list[bytes]:
        """The bodies as they go over the wire, on a connection that stays open."""
        parts = urlsplit(self.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in self.bodies]


def loopback(host: str) -> str:
    """The numeric address of a host that is this machine and nothing else. Raises `LoadError`."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise LoadError(f"{host}: {error}") from error
    if not all(ipaddress.ip_address(address).is_loopback for address in found):
        raise LoadError(f"{host} is {', '.join(sorted(found))}: load goes to loopback addresses alone")
    return sorted(found)[0]


@dataclass(frozen=True)
class Result:
    """What came of a load: a latency in ms for each request, the body that it had, and the reasons of errors.

    A request that came to nothing has the latency at which it did; it never makes a percentile look better.
    `lag` is how long after its time each request was given to a connection, ms: large where connections were missing.
    """

    latencies: np.ndarray
    bodies: np.ndarray
    lag: np.ndarray
    errors: dict[str, int]
    seconds: float

    @property
    def rate(self) -> float:
        """Right answers a second."""
        return (len(self.latencies) - sum(self.errors.values())) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency in ms that this share (0 to 100) of the requests stays below."""
        return float(np.percentile(self.latencies, share)) if len(self.latencies) else float("nan")

    def of_bodies(self, first: int) -> Result:
        """The requests with this body and those after it; the errors are those of all."""
        chosen = self.bodies >= first
        return replace(self, latencies=self.latencies[chosen], bodies=self.bodies[chosen], lag=self.lag[chosen])

    def to_dict(self) -> dict[str, Any]:
        """What a program would read, JSON-able."""
        return {
            "requests": len(self.latencies),
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 1),
            **{f"p{share}_ms": round(self.percentile(share), 3) for share in (50, 90, 99)},
            "largest_ms": round(float(self.latencies.max(initial=0)), 3),
            "lag_p99_ms": round(float(np.percentile(self.lag, 99)), 3) if len(self.lag) else None,
            "errors": self.errors,
        }


class Answer:
    """One HTTP answer while it comes in."""

    def __init__(self) -> None:
        self.is_whole = False
        self._received = bytearray()
        self._end = 0  # of the body; 0 until the header has come

    def add(self, piece: bytes) -> None:
        self._received += piece
        if not self._end:
            start = self._received.find(b"\r\n\r\n") + 4
            if start < 4:
                return
            head = bytes(self._received[:start]).lower()
            _, found, length = head.partition(b"content-length:")
            if not found:
                raise LoadError("the server answers without Content-Length, which this client does not read")
            self._end = start + int(length.split(b"\r\n", 1)[0])
        self.is_whole = len(self._received) >= self._end

    def problems(self, has: bytes) -> list[str]:
        """Why it is no right answer; nothing where it is one."""
        status = bytes(self._received[9:12])
        if status != b"200":
            return [f"status {status.decode('latin-1')}"]
        return [] if has in self._received else ["another answer"]
