"""JSON as TensorFlow Serving reads it: RapidJSON's dialect and its error texts, on Python's decoder."""

from __future__ import annotations

import json
import re
from typing import Any

from app.serving.http.quoting import pretty
from app.serving.status import ServingError, invalid

# Bytes that are no UTF-8 pass through a request and an answer unchanged, as RapidJSON lets them.
PASS_BYTES = "surrogateescape"

# Possessive: without it the matcher remembers every character of a string of megabytes.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_OR_BRACKET = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)
_STRING_OR_SHORT_NUMBER = re.compile(rf"{_STRING}|-NaN|Inf(?!inity)", re.DOTALL)
_HIGH, _LOW = r"u[dD][89abAB][0-9a-fA-F]{2}", r"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"\\(?:{_HIGH}\\{_LOW}|(?P<half>{_HIGH}|{_LOW})|.)", re.DOTALL)

# Python's words for a mistake -> RapidJSON's. Python 3.13 reports a trailing comma by messages of its own.
_REASONS = {
    "Expecting value": "Invalid value.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
}


def parse_object(body: bytes) -> dict[str, Any]:
    """Read the JSON object at the start of `body`; what follows it is ignored.

    Of duplicate keys the first wins; NaN, Infinity and Inf are numbers; whole numbers beyond 64 bits become
    floats.
    Raises `ServingError` with RapidJSON's reason and the offset in bytes.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8", PASS_BYTES)
    start = _skip_space(text, 1 if text.startswith("\ufeff") else 0)
    if start == len(text):
        raise _parse_error("The document is empty.", text, start)
    value = _decode(text, start)
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {pretty(value)} Is not object")
    return value


def _skip_space(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip(" \t\n\r"))


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        members.setdefault(key, value)
    return members


def _whole_number(digits: str) -> int | float:
    if len(digits) > 20:
        return float(digits)
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(number)


_DECODER = json.JSONDecoder(object_pairs_hook=_first_wins, parse_int=_whole_number)


def _decode(text: str, start: int) -> Any:
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if error.msg == "Expecting value" and _STRING_OR_SHORT_NUMBER.match(text, error.pos):
            return _decode_short_numbers(text, start)
        raise _explain(error, text) from error
    _refuse_half_surrogates(text, start, end)
    return value


def _decode_short_numbers(text: str, start: int) -> Any:
    """Again with `Inf` and `-NaN`, which RapidJSON takes and Python does not, spelt out."""
    longer = {"-NaN": " NaN", "Inf": "Infinity"}
    replaced = _STRING_OR_SHORT_NUMBER.sub(lambda match: longer.get(match[0], match[0]), text)
    return _decode(replaced, start)


def _refuse_half_surrogates(text: str, start: int, end: int) -> None:
    for match in _ESCAPE.finditer(text, start, end):
        if match["half"]:
            raise _parse_error("The surrogate pair in string is invalid.", text, match.start())


def _parse_error(reason: str, text: str, position: int) -> ServingError:
    offset = len(text[:position].encode("utf-8", PASS_BYTES))
    return invalid(f"JSON Parse error: {reason} at offset: {offset}")


def _explain(error: json.JSONDecodeError, text: str) -> ServingError:
    """Python's error in RapidJSON's words, at the place where RapidJSON stops reading."""
    message, position = error.msg.removesuffix(": "), error.pos
    if message == "Expecting ',' delimiter":
        return _explain_delimiter(text, position)
    reason = _REASONS.get(message, "Unspecific syntax error.")
    if message.startswith("Illegal trailing comma"):
        position += 1
    if message == "Unterminated string starting at":
        position = len(text)
    elif message == "Invalid \\uXXXX escape":
        position = text.rindex("\\u", 0, position + 2)
    elif not message.startswith("Invalid"):
        position = _skip_space(text, position)
    if reason == "Invalid value.":
        position += _length_of_known_start(text, position)
    return _parse_error(reason, text, position)


def _length_of_known_start(text: str, position: int) -> int:
    """How many characters RapidJSON takes for the start of a literal: 1 of `nan`, 3 of `nuls`."""
    sign = 1 if text.startswith("-", position) else 0
    for literal in ("null", "true", "false", "NaN", "Infinity"):
        length = 0
        while length < len(literal) and text.startswith(literal[: length + 1], position + sign):
            length += 1
        if length and (not sign or literal in ("NaN", "Infinity")):
            return sign + length
    return sign


def _explain_delimiter(text: str, position: int) -> ServingError:
    position = _skip_space(text, position)
    if text[position - 1].isdigit() and text[position : position + 1] == ".":
        return _parse_error("Miss fraction part in number.", text, position + 1)
    if text[position - 1].isdigit() and text[position : position + 1] in ("e", "E"):
        signed = text[position + 1 : position + 2] in ("+", "-")
        return _parse_error("Miss exponent in number.", text, position + 1 + signed)
    if _in_object(text, position):
        return _parse_error("Missing a comma or '}' after an object member.", text, position)
    return _parse_error("Missing a comma or ']' after an array element.", text, position)


def _in_object(text: str, position: int) -> bool:
    opened: list[str] = []
    for match in _STRING_OR_BRACKET.finditer(text, 0, position):
        if match[0] in "[{":
            opened.append(match[0])
        elif match[0] in "]}":
            opened.pop()
    return opened[-1] == "{"
