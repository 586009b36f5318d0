"""Figures as a person reads them: one place for decimals, points, p-values, times and counts."""

from __future__ import annotations

import math

from app.statistics import Interval

UNDEFINED = "undefined"


def decimals(value: float) -> str:
    """0.762"""
    return f"{value:.3f}" if math.isfinite(value) else UNDEFINED


def interval(shown: Interval) -> str:
    """0.762 [.738, .785]"""
    if not math.isfinite(shown.low):
        return decimals(shown.value)
    low, high = (_without_leading_zero(end) for end in (shown.low, shown.high))
    return f"{decimals(shown.value)} [{low}, {high}]"


def _without_leading_zero(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def points(difference: Interval) -> str:
    """A difference of fractions in percentage points, signed: +0.8 points [-1.2, +2.9]"""
    digits = _point_digits(difference)
    return f"{_signed(difference.value, digits)} points {points_range(difference)}"


def points_range(difference: Interval) -> str:
    """The interval alone, in percentage points: [-1.2, +2.9]"""
    digits = _point_digits(difference)
    return f"[{_signed(difference.low, digits)}, {_signed(difference.high, digits)}]"


def points_size(difference: Interval) -> str:
    """The size of a difference without its sign: 0.8 points"""
    return f"{abs(difference.value) * 100:.{_point_digits(difference)}f} points"


def size_in_points(fraction: float) -> str:
    """A fraction in percentage points, without sign or interval: 0.8 points"""
    return f"{abs(fraction) * 100:.1f} points"


def margin(fraction: float) -> str:
    """A margin as it was named, in percentage points: 2 points, 1 point, 0.5 points"""
    size = f"{fraction * 100:.6g}"
    return f"{size} point{'' if size == '1' else 's'}"


def over_seeds(first: int, second: int) -> str:
    """over 5 seeds each; over 5 and 3 seeds"""
    return f"over {first} seeds each" if first == second else f"over {first} and {second} seeds"


def _point_digits(difference: Interval) -> int:
    """One decimal; two where it would hide a narrow interval or on which side of 0 an end lies."""
    narrow = difference.high - difference.low < 0.01
    near_zero = any(0 < abs(end) < 0.0005 for end in (difference.low, difference.high))
    return 2 if narrow or near_zero else 1


def _signed(fraction: float, digits: int) -> str:
    rounded = round(fraction * 100, digits) + 0.0  # + 0.0 makes -0.0 a plain 0
    return f"{rounded:+.{digits}f}"


def p_value(value: float) -> str:
    """p = 0.47, p = 0.032, p = 0.0498, p < 0.001: digits enough to see on which side of 0.05 it is."""
    if value < 0.001:
        return "p < 0.001"
    if value >= 0.1:
        return f"p = {value:.2f}"
    return f"p = {value:.4f}" if 0.0495 <= value < 0.0505 else f"p = {value:.3f}"


def duration(seconds: float) -> str:
    """0:08, 1:12, 2:03:45"""
    if not math.isfinite(seconds):
        return UNDEFINED
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def milliseconds(value: float) -> str:
    """0.9 ms, 45 ms"""
    if not math.isfinite(value):
        return UNDEFINED
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def about(count: int) -> str:
    """Two significant digits, grouped: 6,900"""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"


def listing(parts: list[str]) -> str:
    """a; a and b; a, b and c"""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
