"""One case of the contract: a request as it is sent, and what has to come back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from conformance.wire import Answer

TOY, EXAMPLES, VERSIONS = "/v1/models/toy", "/v1/models/examples", "/v1/models/two%20versions"
FLOAT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Json:
    """A JSON body of this value: the order of keys and white space aside, floats to 1e-6."""

    value: Any

    def check(self, answer: Answer) -> None:
        assert answer.headers["content-type"] == "application/json"
        found = json.loads(answer.body)
        assert equal(found, self.value), f"expected {self.value!r}, got {found!r}"


@dataclass(frozen=True)
class NumberTexts:
    """A JSON body in which every number is the given text."""

    value: Any

    def check(self, answer: Answer) -> None:
        found = json.loads(answer.body, parse_float=str, parse_int=str, parse_constant=str)
        assert found == self.value


@dataclass(frozen=True)
class Body:
    """These bytes, to the last one."""

    content: bytes

    def check(self, answer: Answer) -> None:
        assert answer.body == self.content


@dataclass(frozen=True)
class Error:
    """`{"error": text}` and nothing else, word for word."""

    text: str

    def check(self, answer: Answer) -> None:
        assert error_of(answer) == self.text


@dataclass(frozen=True)
class ErrorLike:
    """`{"error": ...}` with a text that begins like the pattern; the rest is TensorFlow's own or has no fixed order."""

    pattern: str

    def check(self, answer: Answer) -> None:
        text = error_of(answer)
        assert re.match(self.pattern, text), text


@dataclass(frozen=True)
class AnyBody:
    """Only the status counts."""

    def check(self, answer: Answer) -> None:
        """Take whatever came."""


Expected = Json | NumberTexts | Body | Error | ErrorLike | AnyBody


@dataclass(frozen=True)
class Case:
    """`method` and `target` make the request line; `headers` come in addition to Host and Content-Length."""

    name: str
    method: str
    target: str
    body: bytes | None
    status: int
    expected: Expected
    headers: tuple[tuple[str, str], ...] = ()

    def check(self, answer: Answer) -> None:
        """Raise AssertionError where the answer is another."""
        assert answer.status == self.status, answer.body[:500]
        self.expected.check(answer)


def error_of(answer: Answer) -> str:
    """The text of an error's body, which has no other key."""
    assert answer.headers["content-type"] == "application/json"
    body = json.loads(answer.body)
    assert list(body) == ["error"]
    text: str = body["error"]
    return text


def equal(found: Any, wanted: Any) -> bool:
    """Whether two JSON values are the same; numbers to 1e-6, and a float is no whole number."""
    if isinstance(found, float) and isinstance(wanted, float):
        both_nan = math.isnan(found) and math.isnan(wanted)
        return both_nan or math.isclose(found, wanted, rel_tol=FLOAT_TOLERANCE, abs_tol=0)
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(equal(found[key], wanted[key]) for key in wanted)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(equal, found, wanted))
    return type(found) is type(wanted) and bool(found == wanted)


# --- how the tables write their lines ---

# A line of a table of predictions: what it shows, the signature ("" for none), the body, what comes back.
Line = tuple[str, str, str | bytes, Expected]


def named(body: str | bytes, signature_name: str) -> bytes:
    """The body with the name of a signature as its last member, so that offsets in what stands before stay."""
    raw = body if isinstance(body, bytes) else body.encode()
    if not signature_name:
        return raw
    start, brace, rest = raw.rpartition(b"}")
    assert brace, f"no object to put a signature's name into: {body!r}"
    comma = b"" if start.strip() in (b"{", b"") else b", "
    return start + comma + f'"signature_name": "{signature_name}"'.encode() + brace + rest


def predictions(lines: Iterable[Line], *, target: str = f"{TOY}:predict") -> list[Case]:
    """Cases of POST, 200 for an answer and 400 for an error."""
    return [
        Case(name, "POST", target, named(body, signature), 400 if _is_error(expected) else 200, expected)
        for name, signature, body, expected in lines
    ]


def _is_error(expected: Expected) -> bool:
    return isinstance(expected, Error | ErrorLike)


def quoted(value: Any) -> str:
    """A JSON value as error texts quote it."""
    return json.dumps(value, indent=4, ensure_ascii=False)


def element(message: str, index: int = 0) -> Error:
    """The error of one item of `instances`."""
    return Error(f"Failed to process element: {index} of 'instances' list. Error: INVALID_ARGUMENT: {message}")


def wrong_type(value: str, kind: str, expected: str) -> str:
    """The text for a value of another type than the tensor's; `kind` is RapidJSON's name for the value's."""
    return f"JSON Value: {value} Type: {kind} is not of expected type: {expected}"


def rows(*values: Any) -> Json:
    """The answer to `instances`."""
    return Json({"predictions": list(values)})


def columns(value: Any) -> Json:
    """The answer to `inputs`."""
    return Json({"outputs": value})
