"""Promotion gates: what a model has to hold against the champion before it may take its place, as data.

A gate is a function `(Gates, Figures) -> GateResult` with a line in `GATES`. Figures are measured elsewhere
(`app.gate_figures`): nothing here looks at a model. All gates are evaluated, also after one has failed.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from app import wording
from app.errors import RequestError
from app.statistics import Interval

NO_CHAMPION = "no champion to compare with"


class AccuracyGate(BaseModel, frozen=True, extra="forbid"):
    """Accuracy on the test split: not worse than the champion's by more than a margin."""

    margin: float = Field(0.02, ge=0, le=1)
    """Fraction of 1. The lower end of the paired 95% interval of the difference must not lie below its negative."""


class CalibrationGate(BaseModel, frozen=True, extra="forbid"):
    """How far confidence and accuracy may be apart, whatever the champion does.

    More is let through where the test split is so small that exactly right probabilities show as much.
    """

    max_expected_calibration_error: float = Field(0.1, ge=0, le=1)


class SliceGate(BaseModel, frozen=True, extra="forbid"):
    """Accuracy on parts of the test split: a gain overall must not be paid for by some texts."""

    max_drop: float = Field(0.05, ge=0, le=1)
    """Fraction of 1. A slice fails that lost more, unless its interval, corrected for the number of slices, holds 0."""


class LatencyGate(BaseModel, frozen=True, extra="forbid"):
    """Median time of one text alone, both models measured in one run, taking turns."""

    max_ratio: float = Field(10.0, gt=0)
    """Of the champion's; `inf` lets any ratio through."""
    max_milliseconds: float | None = Field(None, gt=0)
    """On the machine that promotes; not set: no limit."""


class ParityGate(BaseModel, frozen=True, extra="forbid"):
    """Whether the SavedModel answers as the classifier that was evaluated."""

    required: bool = True


class Gates(BaseModel, frozen=True, extra="forbid"):
    """All limits. The defaults are those of `train`; `deploy/gates.toml` holds them as a file."""

    accuracy: AccuracyGate = AccuracyGate()
    calibration: CalibrationGate = CalibrationGate()
    slices: SliceGate = SliceGate()
    latency: LatencyGate = LatencyGate()
    parity: ParityGate = ParityGate()


def read_gates(path: Path) -> Gates:
    """Read limits from a TOML file; what it does not name keeps its default.

    Raises:
        RequestError: the file is missing or not TOML, or a name or value in it is none that is allowed.
    """
    try:
        return Gates.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RequestError(f"no file of gates {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path}: not a TOML file ({error})") from None
    except ValidationError as error:
        raise RequestError(f"{path}: {_explain(error)}") from None


@dataclass(frozen=True)
class SliceChange:
    """A part of the test split: its `count` texts, and the challenger's accuracy on them less the champion's.

    `difference` is a fraction of 1, its interval corrected for the number of slices looked at.
    """

    name: str
    count: int
    difference: Interval


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one text alone; the champion's None where there is no champion."""

    challenger: float
    champion: float | None


@dataclass(frozen=True)
class Parity:
    """What `verify` found; `problem` says why it failed, None where it passed."""

    golden_texts: int
    largest_difference: float
    problem: str | None


@dataclass(frozen=True)
class Figures:
    """What the gates judge a challenger by, on `count` test texts.

    `accuracy_difference`, challenger less champion as a fraction of 1, is None where there is no champion, and
    `slices` is empty then. `calibration_error_by_chance` is the most that exactly right probabilities show in 95 of
    100 cases.
    """

    count: int
    accuracy_difference: Interval | None
    expected_calibration_error: float
    calibration_error_by_chance: float
    slices: tuple[SliceChange, ...]
    latency: Latency
    parity: Parity


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict: the figure and the limit as text, and why; `reason` may be empty where it passed."""

    name: str
    passed: bool
    figure: str
    limit: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def evaluate_gates(gates: Gates, figures: Figures) -> tuple[GateResult, ...]:
    """Every gate's verdict, in the order of `GATES`."""
    return tuple(gate(gates, figures) for gate in GATES.values())


def accuracy_gate(gates: Gates, figures: Figures) -> GateResult:
    """The lower end of the paired interval of the difference is at or above -margin (non-inferiority).

    Source: Piaggio et al., 2012, "Reporting of noninferiority and equivalence randomized trials".
    """
    margin, difference = gates.accuracy.margin, figures.accuracy_difference
    limit = f"lower end from {-100 * margin:+.1f} points"
    if difference is None:
        return GateResult("accuracy", True, "", limit, NO_CHAMPION)
    passed = difference.low >= -margin
    return GateResult("accuracy", passed, wording.points(difference), limit, "" if passed else _lost(gates, figures))


def calibration_gate(gates: Gates, figures: Figures) -> GateResult:
    """The expected calibration error is at most the limit, or at most what chance alone makes of so few texts."""
    limit, found = gates.calibration.max_expected_calibration_error, figures.expected_calibration_error
    chance = figures.calibration_error_by_chance
    passed = found <= max(limit, chance)
    reason = ""
    if not passed:
        reason = f"{found - max(limit, chance):.3f} above the limit on {figures.count:,} texts"
    elif found > limit:
        reason = f"above the limit, but {figures.count:,} texts show up to {chance:.3f} by chance"
    return GateResult("calibration", passed, f"{found:.3f}", f"at most {limit:.3f}", reason)


def slices_gate(gates: Gates, figures: Figures) -> GateResult:
    """No slice lost more than the limit, as far as chance does not explain it."""
    max_drop = gates.slices.max_drop
    limit = f"drop of at most {100 * max_drop:.1f} points"
    if figures.accuracy_difference is None:
        return GateResult("slices", True, "", limit, NO_CHAMPION)
    if not figures.slices:
        return GateResult("slices", True, "", limit, "no part of the test split is large enough to look at")
    lost = [one for one in figures.slices if one.difference.value < -max_drop and one.difference.high < 0]
    worst = min(lost or figures.slices, key=lambda one: one.difference.value)
    figure = f"{worst.name} ({worst.count:,} texts): {wording.points(worst.difference)}"
    if not lost:
        by_chance = worst.difference.value < -max_drop
        reason = "a drop of this size may be chance on so few texts" if by_chance else ""
        return GateResult("slices", True, figure, limit, reason)
    beyond = 100 * (-worst.difference.value - max_drop)
    others = f"; {len(lost) - 1} more of {len(figures.slices)} slices too" if len(lost) > 1 else ""
    return GateResult(
        "slices", False, figure, limit, f"{worst.name} lost {beyond:.1f} points more than allowed{others}"
    )


def latency_gate(gates: Gates, figures: Figures) -> GateResult:
    """The median time of one text is within the ratio to the champion's, and within the milliseconds if any are set."""
    own, champion, limits = figures.latency.challenger, figures.latency.champion, gates.latency
    figure, limit, reasons = wording.milliseconds(own), f"at most {limits.max_ratio:g} times the champion's", []
    if limits.max_milliseconds is not None:
        limit += f", {limits.max_milliseconds:g} ms"
        if own > limits.max_milliseconds:
            reasons.append(f"{wording.milliseconds(own - limits.max_milliseconds)} above the limit")
    if champion is not None:
        figure += f", {own / champion:.2f} times {wording.milliseconds(champion)}"
        if own / champion > limits.max_ratio:
            reasons.append(f"{own / champion / limits.max_ratio:.2f} times the ratio allowed")
    passed = not reasons
    return GateResult("latency", passed, figure, limit, _passed_alone(passed, champion) or "; ".join(reasons))


def parity_gate(gates: Gates, figures: Figures) -> GateResult:
    """The SavedModel answers as the classifier that was evaluated, in fresh processes."""
    return parity_result(figures.parity, required=gates.parity.required)


def parity_result(found: Parity, *, required: bool = True) -> GateResult:
    """The verdict on parity alone, which is all that going back to an earlier champion asks for."""
    limit = "golden answers equal" if required else "not required"
    equal = math.isfinite(found.largest_difference)
    figure = f"{found.golden_texts} answers, {found.largest_difference:.0e} apart" if equal else "no answers"
    return GateResult("parity", found.problem is None or not required, figure, limit, found.problem or "")


GATES: dict[str, Callable[[Gates, Figures], GateResult]] = {
    "accuracy": accuracy_gate,
    "calibration": calibration_gate,
    "slices": slices_gate,
    "latency": latency_gate,
    "parity": parity_gate,
}


def _lost(gates: Gates, figures: Figures) -> str:
    """Why the accuracy gate failed: a loss that is shown, or a test split too small to rule one out."""
    margin, difference = gates.accuracy.margin, figures.accuracy_difference
    assert difference is not None
    if math.isnan(difference.low):
        return "the difference is undefined"
    beyond = f"the lower end is {100 * (-margin - difference.low):.1f} points below the limit"
    if difference.high < -margin:
        return f"worse by more than the margin; {beyond}"
    if difference.high < 0:
        return f"worse than the champion; {beyond}"
    if difference.value <= -margin:
        return beyond
    # The half width shrinks with the root of the examples until it fits between the difference and the margin.
    shrink = (difference.value - difference.low) / (difference.value + margin)
    needed = wording.about(math.ceil(figures.count * shrink**2))
    return f"{figures.count:,} texts cannot rule out a larger loss, about {needed} could; {beyond}"


def _passed_alone(passed: bool, champion: float | None) -> str:
    return NO_CHAMPION if passed and champion is None else ""


def _explain(error: ValidationError) -> str:
    """Say what one thing is wrong in a file of gates, and what is allowed."""
    problem = error.errors()[0]
    *sections, last = [str(part) for part in problem["loc"]] or ["gates"]
    name = ".".join((*sections, last))
    if problem["type"] != "extra_forbidden":
        return f"{name} = {problem['input']!r}: {problem['msg']}"
    known = _names(sections)
    close = difflib.get_close_matches(last, known, n=1)
    return f"unknown name {name}. Known: {', '.join(known)}." + (f" Did you mean {close[0]}?" if close else "")


def _names(sections: list[str]) -> list[str]:
    owner: Any = Gates
    for section in sections:
        owner = owner.model_fields[section].annotation
    return list(owner.model_fields)
