"""Load on a server of this machine: requests at a given rate whether it keeps up or not, or as fast as it answers.

    python benchmarks/load.py http://127.0.0.1:8501/v1/models/toy:predict --body '{"instances": ["a"]}' --rate 200
    python benchmarks/load.py http://127.0.0.1:8501/v1/models/toy:predict --body '{"instances": ["a"]}' --closed 32

With `--rate` (an open loop) a latency counts from when the request was due, not from when it could be sent: a server
that stalls is charged with every request that it kept waiting. With `--closed` each connection asks again as soon as
it has its answer. Bounded in time and number; only loopback addresses are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import random
import selectors
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from load_target import Answer, LoadError, Result, Target

MAX_SECONDS = 120.0
MAX_REQUESTS = 500_000
MAX_CONNECTIONS = 512
# How long answers are waited for after the last request was due; what has not come by then counts as an error.
PATIENCE_SECONDS = 10.0


def arrivals(rate: float, seconds: float, *, poisson: bool = True, seed: int = 0) -> list[float]:
    """When requests are due, in seconds from the start: at random as independent clients come, or evenly."""
    if not poisson:
        return [number / rate for number in range(int(rate * seconds))]
    chance = random.Random(seed)
    times, now = [], chance.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += chance.expovariate(rate)
    return times


def open_loop(
    target: Target, rate: float, seconds: float, *, poisson: bool = True, seed: int = 0, connections: int = 256
) -> Result:
    """Send `rate` requests a second for `seconds`, on at most so many connections, whatever the server does."""
    _check(seconds, rate * seconds, connections)
    return _run(_Open(target, arrivals(rate, seconds, poisson=poisson, seed=seed), connections))


def closed_loop(target: Target, connections: int, seconds: float) -> Result:
    """Keep that many connections busy, each with one request at a time."""
    _check(seconds, 0, connections)
    return _run(_Closed(target, connections, seconds))


def one_connection(target: Target, count: int, warm_up: int = 20) -> Result:
    """Ask `count` times, one after the other, with nothing of an event loop's own cost in the latencies."""
    _check(0, count + warm_up, 1)
    requests, errors = target.requests(), Counter[str]()
    latencies: list[float] = []
    started = time.perf_counter()
    with socket.create_connection(target.address, timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(count + warm_up):
            if number == warm_up:
                started = time.perf_counter()
                latencies.clear()
                errors.clear()
            due, answer = time.perf_counter(), Answer()
            connection.sendall(requests[number % len(requests)])
            while not answer.is_whole:
                piece = connection.recv(65536)
                if not piece:
                    raise LoadError(f"{target.url}: the server closed the connection")
                answer.add(piece)
            latencies.append(1000 * (time.perf_counter() - due))
            errors.update(answer.problems(target.has))
    bodies = np.arange(warm_up, count + warm_up) % len(requests)
    return Result(np.array(latencies), bodies, np.zeros(count), dict(errors), time.perf_counter() - started)


def _check(seconds: float, requests: float, connections: int) -> None:
    if seconds > MAX_SECONDS or requests > MAX_REQUESTS or not 1 <= connections <= MAX_CONNECTIONS:
        raise LoadError(
            f"allowed are at most {MAX_SECONDS:.0f} seconds, {MAX_REQUESTS:,} requests, {MAX_CONNECTIONS} connections"
        )


def _run(load: _Load) -> Result:
    # select() takes microseconds where epoll takes milliseconds: a request due in 0.2 ms does not wait for a whole one.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(load.run())


class _Connection(asyncio.Protocol):
    """A connection that stays open, with at most one request on its way."""

    def __init__(self, load: _Load) -> None:
        self.request: int | None = None
        self._load = load
        self._answer = Answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: int, content: bytes) -> None:
        self.request, self._answer = request, Answer()
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        try:
            self._answer.add(data)
        except LoadError as error:
            self._finish([str(error)])
            self._transport.abort()
            return
        if self._answer.is_whole:
            self._finish(self._answer.problems(self._load.target.has))

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost(self)
        if self.request is not None:
            self._finish(["connection closed"])

    def close(self) -> None:
        self._transport.abort()

    def _finish(self, problems: Iterable[str]) -> None:
        request, self.request = self.request, None
        if request is not None:
            self._load.answered(self, request, problems)


class _Load(ABC):
    """What the open and the closed loop share: connections, and what became of each request."""

    def __init__(self, target: Target, connections: int) -> None:
        self.target = target
        self._contents = target.requests()
        self._max_connections = connections
        self._open: set[_Connection] = set()
        self._sent: list[tuple[float, float]] = []  # when each was due, and how long after that it went out, ms
        self._lag: list[float] = []  # like the next two, in the order of the answers
        self._latencies: list[float] = []
        self._bodies: list[int] = []
        self._errors = Counter[str]()
        self._last = 0.0

    @abstractmethod
    async def run(self) -> Result:
        """Ask, and wait for the answers."""

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(functools.partial(_Connection, self), *self.target.address)
        except OSError as error:
            raise LoadError(f"{self.target.url}: {error}") from error
        self._open.add(connection)
        return connection

    def _ask(self, connection: _Connection, due: float) -> None:
        request = len(self._sent)
        self._sent.append((due, 1000 * (time.perf_counter() - due)))
        connection.ask(request, self._contents[request % len(self._contents)])

    def answered(self, connection: _Connection, request: int, problems: Iterable[str]) -> None:
        self._last = time.perf_counter()
        due, lag = self._sent[request]
        self._lag.append(lag)
        self._latencies.append(1000 * (self._last - due))
        self._bodies.append(request % len(self._contents))
        self._errors.update(problems)

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)

    def _end(self, started: float) -> Result:
        for connection in list(self._open):
            connection.close()
        seconds = max(self._last - started, 1e-9)
        latencies, bodies, lag = (np.array(values) for values in (self._latencies, self._bodies, self._lag))
        return Result(latencies, bodies, lag, dict(self._errors), seconds)


class _Open(_Load):
    def __init__(self, target: Target, times: Sequence[float], connections: int) -> None:
        super().__init__(target, connections)
        self._times = times
        self._idle: list[_Connection] = []
        self._waiting: deque[float] = deque()
        self._connecting = 0

    async def run(self) -> Result:
        self._idle.append(await self._connect())
        started, tasks = time.perf_counter(), set[asyncio.Task[None]]()
        for moment in self._times:
            due = started + moment
            while (rest := due - time.perf_counter()) > 0:
                await asyncio.sleep(rest)
            self._waiting.append(due)
            self._send()
            if self._waiting and len(self._open) + self._connecting < self._max_connections:
                self._connecting += 1
                tasks.add(asyncio.create_task(self._add_connection()))
            await asyncio.sleep(0)  # answers that came meanwhile are taken before the next request
        end = time.perf_counter() + PATIENCE_SECONDS
        while len(self._latencies) < len(self._times) and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        self._give_up()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self._end(started)

    async def _add_connection(self) -> None:
        try:
            self._idle.append(await self._connect())
        except LoadError:
            return  # the requests wait for the connections that there are
        finally:
            self._connecting -= 1
        self._send()

    def _send(self) -> None:
        while self._waiting and self._idle:
            self._ask(self._idle.pop(), self._waiting.popleft())

    def answered(self, connection: _Connection, request: int, problems: Iterable[str]) -> None:
        super().answered(connection, request, problems)
        if connection in self._open:
            self._idle.append(connection)
        self._send()

    def lost(self, connection: _Connection) -> None:
        super().lost(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _give_up(self) -> None:
        """Count what was due and has no answer."""
        now = time.perf_counter()
        for connection in [one for one in self._open if one.request is not None]:
            request, connection.request = connection.request, None
            assert request is not None
            super().answered(connection, request, ["no answer"])
        for due in self._waiting:
            self._latencies.append(1000 * (now - due))
            self._bodies.append(0)
            self._lag.append(1000 * (now - due))
            self._errors["never sent"] += 1


class _Closed(_Load):
    def __init__(self, target: Target, connections: int, seconds: float) -> None:
        super().__init__(target, connections)
        self._seconds = seconds
        self._is_ending = False

    async def run(self) -> Result:
        connections = [await self._connect() for _ in range(self._max_connections)]
        started = time.perf_counter()
        for connection in connections:
            self._ask(connection, time.perf_counter())
        await asyncio.sleep(self._seconds)
        self._is_ending = True
        end = time.perf_counter() + PATIENCE_SECONDS
        while any(connection.request is not None for connection in self._open) and time.perf_counter() < end:
            await asyncio.sleep(0.01)
        self._errors["no answer"] += sum(connection.request is not None for connection in self._open)
        self._errors += Counter()  # drops the zero
        return self._end(started)

    def answered(self, connection: _Connection, request: int, problems: Iterable[str]) -> None:
        super().answered(connection, request, problems)
        if not self._is_ending and len(self._sent) < MAX_REQUESTS and connection in self._open:
            self._ask(connection, time.perf_counter())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one JSON object. Exit code 1 when there were errors, 2 for a load that is not made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--body", action="append", required=True, help="JSON, or @FILE; several are sent in turn")
    parser.add_argument("--has", default="", help="what every right answer holds")
    parser.add_argument("--rate", type=float, help="requests a second")
    parser.add_argument("--closed", type=int, metavar="CONNECTIONS", help="as fast as they are answered")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--even", action="store_true", help="evenly spaced requests; else at random (Poisson)")
    parser.add_argument("--connections", type=int, default=256, help="at most, for --rate")
    chosen = parser.parse_args(arguments)
    if (chosen.rate is None) == (chosen.closed is None):
        parser.error("give --rate or --closed")
    bodies = tuple(Path(body[1:]).read_bytes() if body.startswith("@") else body.encode() for body in chosen.body)
    try:
        target = Target(chosen.url, bodies, chosen.has.encode())
        if chosen.closed is not None:
            result = closed_loop(target, chosen.closed, chosen.seconds)
        else:
            result = open_loop(
                target, chosen.rate, chosen.seconds, poisson=not chosen.even, connections=chosen.connections
            )
    except LoadError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result.to_dict(), indent=2))
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main())
