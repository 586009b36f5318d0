"""Promotion gates over figures worked by hand: what passes, what fails, and what is said of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from app.errors import RequestError
from app.gates import (
    GATES,
    AccuracyGate,
    Figures,
    Gates,
    Latency,
    Parity,
    SliceChange,
    evaluate_gates,
    read_gates,
)
from app.statistics import Interval

ROOT = Path(__file__).parents[1]
GOOD = Figures(
    count=1_289,
    accuracy_difference=Interval(0.004, -0.008, 0.016),
    expected_calibration_error=0.03,
    calibration_error_by_chance=0.04,
    slices=(SliceChange("label fresh", 742, Interval(-0.01, -0.03, 0.01)),),
    latency=Latency(2.7, 0.9),
    parity=Parity(64, 7e-8, None),
)


LIMITS = Gates(accuracy=AccuracyGate(margin=0.01))


def result(name: str, gates: Gates | None = None, **changed):
    """The verdict of one gate where the figures are good but for what is given."""
    (found,) = (
        one for one in evaluate_gates(gates or LIMITS, dataclasses.replace(GOOD, **changed)) if one.name == name
    )
    return found


def test_good_figures_pass_every_gate_and_are_shown():
    results = evaluate_gates(LIMITS, GOOD)
    assert [one.name for one in results] == list(GATES)
    assert all(one.passed for one in results)
    assert [one.reason for one in results] == [""] * 5
    assert [(one.figure, one.limit) for one in results] == [
        ("+0.4 points [-0.8, +1.6]", "lower end from -1.0 points"),
        ("0.030", "at most 0.100"),
        ("label fresh (742 texts): -1.0 points [-3.0, +1.0]", "drop of at most 5.0 points"),
        ("2.7 ms, 3.00 times 0.9 ms", "at most 10 times the champion's"),
        ("64 answers, 7e-08 apart", "golden answers equal"),
    ]


def test_all_gates_are_evaluated_even_if_the_first_fails():
    results = evaluate_gates(
        LIMITS,
        Figures(
            count=1_289,
            accuracy_difference=Interval(-0.1, -0.12, -0.08),
            expected_calibration_error=0.2,
            calibration_error_by_chance=0.04,
            slices=(SliceChange("label rotten", 547, Interval(-0.2, -0.25, -0.15)),),
            latency=Latency(30.0, 1.0),
            parity=Parity(64, math.inf, "labels differ"),
        ),
    )
    assert [one.passed for one in results] == [False] * 5
    assert all(one.reason for one in results)


@pytest.mark.parametrize(
    ("difference", "passed"),
    [
        (Interval(0.0, -0.01, 0.01), True),  # the limit itself
        (Interval(0.0, -0.0101, 0.01), False),
        (Interval(0.05, 0.02, 0.08), True),
        (Interval(-0.005, -0.009, -0.001), True),  # worse, but within the margin
        (Interval(math.nan, math.nan, math.nan), False),
    ],
)
def test_accuracy_passes_where_the_lower_end_is_within_the_margin(difference: Interval, passed: bool):
    assert result("accuracy", accuracy_difference=difference).passed is passed


def test_a_test_split_that_is_too_small_is_told_from_a_worse_model():
    # Half width 2.0 has to shrink to 1.0, the way from 0 to -1.0: four times the texts.
    small = result("accuracy", accuracy_difference=Interval(0.0, -0.02, 0.02), count=1_000)
    assert small.reason == (
        "1,000 texts cannot rule out a larger loss, about 4,000 could; the lower end is 1.0 points below the limit"
    )
    worse = result("accuracy", accuracy_difference=Interval(-0.02, -0.035, -0.005))
    assert worse.reason == "worse than the champion; the lower end is 2.5 points below the limit"
    far_worse = result("accuracy", accuracy_difference=Interval(-0.05, -0.06, -0.04))
    assert far_worse.reason == "worse by more than the margin; the lower end is 5.0 points below the limit"
    unclear = result("accuracy", accuracy_difference=Interval(-0.02, -0.05, 0.01))
    assert unclear.reason == "the lower end is 4.0 points below the limit"


def test_calibration_is_held_against_its_limit():
    assert result("calibration", expected_calibration_error=0.1).passed
    failed = result("calibration", expected_calibration_error=0.125)
    assert not failed.passed
    assert failed.reason == "0.025 above the limit on 1,289 texts"
    assert not result("calibration", expected_calibration_error=math.nan).passed


def test_few_texts_may_show_the_calibration_error_that_chance_explains():
    few = result("calibration", expected_calibration_error=0.19, calibration_error_by_chance=0.2)
    assert few.passed
    assert few.reason == "above the limit, but 1,289 texts show up to 0.200 by chance"
    failed = result("calibration", expected_calibration_error=0.25, calibration_error_by_chance=0.2)
    assert failed.reason == "0.050 above the limit on 1,289 texts"


def test_a_slice_fails_that_lost_more_than_allowed_and_not_by_chance():
    fine = SliceChange("label fresh", 700, Interval(0.02, -0.01, 0.05))
    lost = SliceChange("cut off", 120, Interval(-0.08, -0.12, -0.04))
    more = SliceChange("film = Alien", 60, Interval(-0.1, -0.19, -0.01))
    failed = result("slices", slices=(fine, lost, more))
    assert not failed.passed
    assert failed.figure == "film = Alien (60 texts): -10.0 points [-19.0, -1.0]"
    assert failed.reason == "film = Alien lost 5.0 points more than allowed; 1 more of 3 slices too"


def test_a_drop_that_may_be_chance_passes_and_is_said():
    shaky = SliceChange("label rare", 60, Interval(-0.1, -0.25, 0.05))
    passed = result("slices", slices=(shaky,))
    assert passed.passed
    assert passed.reason == "a drop of this size may be chance on so few texts"
    assert result("slices", slices=()).reason == "no part of the test split is large enough to look at"


def test_latency_is_held_against_the_champion_and_against_milliseconds():
    assert result("latency", latency=Latency(10.0, 1.0)).passed
    failed = result("latency", latency=Latency(12.0, 1.0))
    assert not failed.passed
    assert failed.reason == "1.20 times the ratio allowed"
    strict = Gates.model_validate({"latency": {"max_ratio": math.inf, "max_milliseconds": 2.0}})
    too_slow = result("latency", strict, latency=Latency(2.5, 0.01))
    assert not too_slow.passed
    assert too_slow.reason == "0.5 ms above the limit"
    assert too_slow.limit == "at most inf times the champion's, 2 ms"


def test_parity_fails_unless_it_is_not_required():
    broken = Parity(64, 0.3, "2 labels differ")
    assert result("parity", parity=broken).passed is False
    assert result("parity", parity=broken).reason == "2 labels differ"
    assert result("parity", Gates.model_validate({"parity": {"required": False}}), parity=broken).passed


def test_without_a_champion_only_what_stands_alone_is_judged():
    figures = dataclasses.replace(GOOD, accuracy_difference=None, slices=(), latency=Latency(2.7, None))
    results = {one.name: one for one in evaluate_gates(Gates(), figures)}
    assert all(one.passed for one in results.values())
    assert {name for name, one in results.items() if one.reason == "no champion to compare with"} == {
        "accuracy",
        "slices",
        "latency",
    }
    alone = dataclasses.replace(figures, expected_calibration_error=0.3)
    assert not all(one.passed for one in evaluate_gates(Gates(), alone))


def test_the_documented_file_holds_the_defaults():
    assert read_gates(ROOT / "deploy" / "gates.toml") == Gates()


def test_a_file_changes_what_it_names(tmp_path: Path):
    file = tmp_path / "gates.toml"
    file.write_text("[accuracy]\nmargin = 0.02\n[latency]\nmax_ratio = inf\nmax_milliseconds = 20\n")
    gates = read_gates(file)
    assert (gates.accuracy.margin, gates.latency.max_ratio, gates.latency.max_milliseconds) == (0.02, math.inf, 20)
    assert gates.slices == Gates().slices


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[accuracy]\nmargn = 0.1", r"unknown name accuracy.margn. Known: margin. Did you mean margin\?"),
        ("[accurracy]\nmargin = 0.1", r"unknown name accurracy. Known: accuracy, .* Did you mean accuracy\?"),
        ("[accuracy]\nmargin = -0.1", "accuracy.margin = -0.1: Input should be greater than or equal to 0"),
        ("[accuracy]\nmargin = nan", "accuracy.margin = nan"),
        ("[latency]\nmax_ratio = nan", "latency.max_ratio = nan"),
        ("[latency]\nmax_ratio = 0", "latency.max_ratio = 0: Input should be greater than 0"),
        ("[parity]\nrequired = 3", "parity.required = 3"),
        ("accuracy = 1", "accuracy = 1"),
        ("[accuracy", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, content: str, message: str):
    file = tmp_path / "gates.toml"
    file.write_text(content)
    with pytest.raises(RequestError, match=message) as refused:
        read_gates(file)
    assert str(file) in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(RequestError, match="no file of gates"):
        read_gates(tmp_path / "absent.toml")
