"""The load generator of benchmarks/, before a small server that says what reached it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import load
from load_target import Answer, LoadError, Target

BODIES = (b'{"instances": ["a"]}', b'{"instances": ["bb"]}')


class Asked:
    """What the server was asked, and how many requests it had at once."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()

    @contextmanager
    def working_on(self, body: bytes) -> Iterator[int]:
        with self.lock:
            self.bodies.append(body)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            number = len(self.bodies)
        yield number
        with self.lock:
            self.at_once -= 1


class Server(ThreadingHTTPServer):
    """Says nothing of clients that gave up: that is what some tests are about."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def answering(answer: Callable[[int], tuple[int, bytes]]) -> Iterator[tuple[str, Asked]]:
    """A server that answers its n-th request as told, and None by closing the connection."""
    asked = Asked()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with asked.working_on(body) as number:
                status, content = answer(number)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/predict", asked
        finally:
            server.shutdown()
            thread.join()


def right(_: int) -> tuple[int, bytes]:
    return 200, b'{"predictions": [1]}'


def test_an_open_loop_sends_every_request_that_is_due():
    with answering(right) as (url, asked):
        result = load.open_loop(Target(url, BODIES, b"predictions"), rate=200, seconds=0.2, poisson=False)
    assert sorted(asked.bodies) == sorted(BODIES * 20)
    assert (len(result.latencies), result.errors) == (40, {})
    assert np.bincount(result.bodies).tolist() == [20, 20]
    assert len(result.of_bodies(1).latencies) == 20
    assert (result.latencies >= result.lag).all()
    assert (result.latencies > 0).all()


def test_a_server_that_stalls_is_charged_with_the_requests_that_it_kept_waiting():
    hold, gap = 0.3, 0.01

    def stall_once(number: int) -> tuple[int, bytes]:
        if number == 1:
            time.sleep(hold)
        return right(number)

    with answering(stall_once) as (url, _):
        result = load.open_loop(Target(url, BODIES[:1]), rate=1 / gap, seconds=0.1, poisson=False, connections=1)
    due = np.arange(10) * gap
    assert (result.latencies >= 1000 * (hold - due)).all()


def test_a_request_without_a_free_connection_gets_a_new_one():
    together = threading.Barrier(4)

    def wait_for_the_others(number: int) -> tuple[int, bytes]:
        together.wait(10)
        return right(number)

    with answering(wait_for_the_others) as (url, asked):
        result = load.open_loop(Target(url, BODIES), rate=100, seconds=0.04, poisson=False)
    assert (len(result.latencies), result.errors, asked.most_at_once) == (4, {}, 4)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((503, b"{}"), "status 503"),
        ((200, b'{"error": "x"}'), "another answer"),
        ((0, b""), "connection closed"),
    ],
)
def test_wrong_answers_are_errors(answer, error):
    with answering(lambda number: answer if number % 2 else right(number)) as (url, _):
        result = load.open_loop(Target(url, BODIES, b"predictions"), rate=100, seconds=0.1, poisson=False)
    assert result.errors == {error: 5}
    assert len(result.latencies) == 10
    assert result.rate == pytest.approx(5 / result.seconds)


def test_a_server_that_never_answers_costs_its_requests(monkeypatch):
    monkeypatch.setattr(load, "PATIENCE_SECONDS", 0.2)
    forever = threading.Event()

    def never(number: int) -> tuple[int, bytes]:
        forever.wait(10)
        return right(number)

    with answering(never) as (url, _):
        result = load.open_loop(Target(url, BODIES[:1]), rate=100, seconds=0.05, poisson=False, connections=2)
        forever.set()
    assert result.errors == {"no answer": 2, "never sent": 3}
    assert (result.latencies >= 150).all()


def test_a_closed_loop_keeps_its_connections_busy_and_no_more():
    with answering(right) as (url, asked):
        result = load.closed_loop(Target(url, BODIES, b"predictions"), connections=3, seconds=0.3)
    assert result.errors == {}
    assert len(result.latencies) == len(asked.bodies) > 3
    assert asked.most_at_once <= 3


def test_one_connection_asks_one_after_the_other():
    with answering(right) as (url, asked):
        result = load.one_connection(Target(url, BODIES, b"predictions"), count=10, warm_up=3)
    assert (len(result.latencies), len(asked.bodies), asked.most_at_once) == (10, 13, 1)
    assert result.errors == {}


@pytest.mark.parametrize(
    "url",
    ["http://8.8.8.8/predict", "http://0.0.0.0:8501/", "https://127.0.0.1/", "127.0.0.1:8501", "http://[2001::1]/"],
)
def test_load_goes_to_this_machine_alone(url):
    with pytest.raises(LoadError):
        Target(url, BODIES)


@pytest.mark.parametrize(("rate", "seconds", "connections"), [(1, 121, 1), (10_000, 60, 1), (1, 1, 513), (1, 1, 0)])
def test_load_is_bounded(rate, seconds, connections):
    target = Target("http://127.0.0.1:1/", BODIES)
    with pytest.raises(LoadError, match="allowed are at most 120 seconds"):
        load.open_loop(target, rate, seconds, connections=connections)


def test_nobody_there_is_no_result():
    with answering(right) as (url, _):
        pass
    with pytest.raises(LoadError, match=url):
        load.open_loop(Target(url, BODIES), rate=10, seconds=0.1)


def test_arrivals_at_random_have_the_rate_and_repeat_by_seed():
    times = load.arrivals(100, 100, seed=3)
    assert times == load.arrivals(100, 100, seed=3) != load.arrivals(100, 100, seed=4)
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 100
    assert abs(len(times) - 10_000) < 400  # four times the standard deviation of their number
    gaps = np.diff(times)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)  # as exponential gaps have it
    assert np.diff(load.arrivals(50, 2, poisson=False)) == pytest.approx(0.02)


def test_an_answer_may_come_in_any_pieces():
    whole = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nx: y\r\n\r\nhello"
    answer = Answer()
    for position in range(len(whole)):
        assert not answer.is_whole
        answer.add(whole[position : position + 1])
    assert answer.is_whole
    assert (answer.problems(b"hell"), answer.problems(b"bye")) == ([], ["another answer"])


def test_the_command_prints_json_and_ends_with_1_after_errors(capsys, tmp_path):
    (tmp_path / "body.json").write_bytes(BODIES[0])
    with answering(lambda number: right(number) if number > 1 else (500, b"")) as (url, asked):
        arguments = [url, "--body", f"@{tmp_path / 'body.json'}", "--rate", "100", "--seconds", "0.05", "--even"]
        first = load.main(arguments)
        printed = json.loads(capsys.readouterr().out)
        assert (first, load.main(arguments)) == (1, 0)
    assert (printed["requests"], printed["errors"]) == (5, {"status 500": 1})
    assert set(asked.bodies) == {BODIES[0]}
    assert load.main(["http://8.8.8.8/", "--body", "{}", "--closed", "1"]) == 2
