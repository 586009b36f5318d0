"""JSON values as error messages quote them: as RapidJSON's pretty writer has them, four spaces a level."""

from __future__ import annotations

import contextlib
import json
import math
import re
from decimal import Decimal
from typing import Any

import numpy as np

from app.serving.http.float_text import write_floats

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|.)")


# A request can nest so deeply that its quotation, four spaces a level, is a thousand times as long as itself.
_MAX_CHARACTERS = 64 * 1024


class _NotFiniteError(Exception):
    pass


class _TooLongError(Exception):
    pass


class _Parts(list[str]):
    """The pieces of a quotation, up to a length."""

    characters = 0

    def append(self, text: str) -> None:
        self.characters += len(text)
        super().append(text)
        if self.characters > _MAX_CHARACTERS:
            raise _TooLongError


def pretty(value: Any) -> str:
    """Write a JSON value over several lines.

    A float that stands alone is written as answers write float32. Inside a list or an object it has as many digits
    as it needs, and one that is not finite ends the text: RapidJSON's writer stops there. What is longer than 64 KB is
    cut, and ends in three dots.
    """
    if isinstance(value, float):
        fits = abs(value) <= _LARGEST_FLOAT32
        return write_floats(np.array([value], np.float32 if fits else np.float64))[0]
    parts = _Parts()
    try:
        with contextlib.suppress(_NotFiniteError):
            _write(value, "", parts)
    except _TooLongError:
        return "".join(parts)[:_MAX_CHARACTERS] + "..."
    return "".join(parts)


def _write(value: Any, margin: str, parts: list[str]) -> None:
    if isinstance(value, dict) and value:
        _write_members(((f"{_string(key)}: ", member) for key, member in value.items()), "{}", margin, parts)
    elif isinstance(value, list) and value:
        _write_members((("", item) for item in value), "[]", margin, parts)
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, float):
        parts.append(_double(value))
    else:
        parts.append(json.dumps(value))


def _write_members(members: Any, brackets: str, margin: str, parts: list[str]) -> None:
    inner = margin + "    "
    before = brackets[0]
    for name, member in members:
        parts.append(f"{before}\n{inner}{name}")
        _write(member, inner, parts)
        before = ","
    parts.append(f"\n{margin}{brackets[1]}")


def _string(text: str) -> str:
    """Quoted; what is no ASCII stays as it is, and control characters have capital hex digits."""
    quoted = json.dumps(text, ensure_ascii=False)
    if "\\u" not in quoted:
        return quoted
    return _ESCAPE.sub(lambda match: match[0] if match[0][1] != "u" else f"\\u{match[0][2:].upper()}", quoted)


def _double(value: float) -> str:
    """The shortest digits that read back as the same number: `12340000000.0`, `0.001234`, `1.5e30`, `1e-7`."""
    if not math.isfinite(value):
        raise _NotFiniteError
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    sign, numbers, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, numbers))
    point = len(digits) + int(exponent)  # the decimal point stands before the digit of this number
    return "-" * sign + _place_point(digits, point)


def _place_point(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits + "0" * (point - len(digits)) + ".0"
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1}"
