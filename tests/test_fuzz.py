"""Random requests against a running server: whatever is asked, it is never the server that is at fault.

The same requests as in benchmarks/fuzz.py, fewer of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from fuzz_answers import Asker, BadAnswerError, Tally, check
from fuzz_model import NAME, write_model
from fuzz_requests import DAMAGED_HTTP, KINDS, Wire

from app.serving.server import serve_in_background

EXAMPLES = 400
BODY = b'{"instances": ["a"]}'

quickly = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def tally() -> Tally:
    return Tally()


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory, tally: Tally) -> Iterator[Asker]:
    base_path = tmp_path_factory.mktemp("fuzzed") / NAME
    write_model(base_path / "1")
    with serve_in_background(NAME, base_path) as url:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        with closing(Asker(address.hostname, address.port, tally)) as asker:
            yield asker


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_makes_the_server_fail(asker: Asker, tally: Tally, kind: str):
    requests, share = KINDS[kind]
    before = tally.requests

    @settings(quickly, max_examples=round(EXAMPLES * share))
    @given(requests)
    def ask(wire: Wire) -> None:
        asker.ask(wire)

    ask()
    assert tally.requests > before
    assert tally.failures() == 0


def test_what_is_hardly_http_does_not_either(asker: Asker, tally: Tally):
    @settings(quickly, max_examples=30)
    @given(DAMAGED_HTTP)
    def glimpse(data: bytes) -> None:
        asker.glimpse(data)

    glimpse()
    asker.ask(Wire("POST", f"/v1/models/{NAME}:predict".encode(), (), BODY))
    assert tally.failures() == 0


def test_the_requests_reach_the_graph_and_the_errors_alike(asker: Asker, tally: Tally):
    """A generator whose requests all fail at the first brace would prove little."""
    own = Tally()
    with closing(Asker(*asker.address, own)) as counted:

        @settings(quickly, max_examples=100)
        @given(KINDS["near-valid predictions"][0])
        def ask(wire: Wire) -> None:
            counted.ask(wire)

        ask()
    assert own.statuses[200] > 10
    assert own.statuses[400] > 10


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (500, {}, b'{"error": "x"}'),
        (502, {}, b'{"error": "x"}'),
        (400, {}, b'{"message": "x"}'),
        (400, {}, b'{"error": 1}'),
        (400, {}, b"plain"),
        (200, {}, b'{"error": "x"}'),
        (200, {}, b"[]"),
        (200, {"content-type": "text/plain"}, b'{"predictions": []}'),
        (200, {"x-request-id": None}, b'{"predictions": []}'),
    ],
)
def test_an_answer_that_is_not_the_contracts_is_noticed(status: int, headers: dict[str, str | None], content: bytes):
    wire = Wire("POST", b"/v1/models/toy:predict", (), BODY)
    good = {"content-type": "application/json", "x-request-id": "1"}
    check(wire, 200, good, b'{"predictions": [NaN]}')
    check(wire, 503, good, b'{"error": "too much"}')
    given_headers = {name: value for name, value in {**good, **headers}.items() if value is not None}
    with pytest.raises(BadAnswerError):
        check(wire, status, given_headers, content)
