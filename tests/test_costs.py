"""What models cost: speeds measured in turns, joules from counters, and the price of an avoided error."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from app.analysis.costs import (
    BreakEven,
    ModelCost,
    Speed,
    cost_panel,
    errors_avoided,
    export_bytes,
    measure_speeds,
)
from app.analysis.energy import EnergyMeter
from app.answers import Answers
from app.errors import RequestError
from app.statistics import Interval


def answers(name: str, correct: list[bool]) -> Answers:
    """The answers of a model that is right where it is said to be, on texts labelled 0."""
    count = len(correct)
    logits = np.array([[1.0, -1.0] if right else [-1.0, 1.0] for right in correct])
    return Answers(
        name=name,
        label_names=("good", "bad"),
        texts=tuple(f"text {row}" for row in range(count)),
        label_ids=np.zeros(count, np.int64),
        logits=logits,
        temperature=1.0,
        num_tokens=np.full(count, 5),
        unknown_share=np.zeros(count),
        sequence_length=16,
    )


def cost(name: str, *, milliseconds: float, cpu: float, training: float | None = 60.0) -> ModelCost:
    return ModelCost(name, training, 1_000, 2_000_000, Speed(milliseconds, 2 * milliseconds, 500.0, cpu, None))


class Busy:
    """Answers after it has computed for so many milliseconds, and notes each call."""

    def __init__(self, name: str, milliseconds: float, calls: list[str]) -> None:
        self.name, self.seconds, self.calls = name, milliseconds / 1_000, calls

    def predict(self, texts, batch_size=None):
        self.calls.append(self.name)
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass


def test_classifiers_take_turns_and_start_in_turn():
    calls: list[str] = []
    measure_speeds({"a": Busy("a", 0, calls), "b": Busy("b", 0, calls)}, ["x", "y"], rounds=2)
    measured = "".join(calls)[2 * 11 :]  # after ten texts and a batch each to warm up
    assert measured == "abba" + "abba"


def test_the_slower_classifier_is_the_slower_one_in_every_figure():
    speeds = measure_speeds({"slow": Busy("slow", 6, []), "fast": Busy("fast", 1, [])}, ["text"] * 9, rounds=3)
    slow, fast = speeds["slow"], speeds["fast"]
    assert slow.p50_milliseconds > 3 * fast.p50_milliseconds
    assert slow.p95_milliseconds >= slow.p50_milliseconds
    assert slow.texts_per_second < fast.texts_per_second
    assert slow.cpu_seconds > fast.cpu_seconds


def test_no_text_is_refused():
    with pytest.raises(RequestError, match="at least 1"):
        measure_speeds({"a": Busy("a", 0, [])}, [])


def test_errors_avoided_are_given_for_1000_texts():
    dearer, cheaper = [True] * 90 + [False] * 10, [True] * 80 + [False] * 20
    found = errors_avoided(answers("lstm", dearer), answers("linear", cheaper))
    assert found.value == pytest.approx(100)
    assert 0 < found.low < 100 < found.high
    with pytest.raises(RequestError, match="label_ids differ"):
        errors_avoided(answers("lstm", [True]), answers("linear", [True, True]))


def test_an_avoided_error_costs_what_the_dearer_model_takes_more():
    one = BreakEven("lstm", "linear", Interval(10, 5, 20), 2.0, 3.0, 360.0)
    assert one.each_error_costs(3.0) == Interval(0.3, 0.15, 0.6)
    assert one.sentences == (
        "lstm avoids 10.0 [5.0, 20.0] errors in 1,000 texts that linear makes.",
        "It takes +2.0 ms a text alone, +3.00 CPU seconds for 1,000 texts in batches: each avoided error costs 200 ms "
        "of waiting [100, 400] or 0.300 CPU seconds [0.150, 0.600].",
    )


def test_where_perhaps_no_error_is_avoided_its_price_has_no_upper_end():
    one = BreakEven("lstm", "linear", Interval(1, -4, 6), 2.0, 3.0, None)
    assert one.each_error_costs(3.0).high == math.inf
    assert one.to_dict()["cpu_seconds_per_avoided_error"]["high"] is None
    assert one.sentences[0] == "lstm is not shown to avoid errors that linear makes: +1.0 [-4.0, +6.0] in 1,000 texts."
    worse = BreakEven("lstm", "linear", Interval(-5, -8, -2), 2.0, 3.0, None)
    assert "makes more errors: -5.0 [-8.0, -2.0]" in worse.sentences[0]


def test_prices_make_a_break_even():
    # 3.6 CPU seconds at 10 an hour are 0.01; ten errors at 0.002 are 0.02: 0.01 is left of every 1,000 texts.
    one = BreakEven(
        "lstm", "linear", Interval(10, 8, 20), 2.0, 3.6, 360.0, price_per_cpu_hour=10, price_per_error=0.002
    )
    assert one.gain.value == pytest.approx(0.01)
    assert one.gain.low == pytest.approx(0.006)
    # Training took 360 CPU seconds more, 1.0 in money: 100 times 1,000 texts earn it back.
    assert one.sentences[-1] == (
        "At 10 a CPU hour and 0.002 an error it pays: +0.01 [+0.006, +0.03] for 1,000 texts; its training is earned "
        "back after about 100,000 texts."
    )


@pytest.mark.parametrize(
    ("price_per_error", "said"),
    [
        (None, "At 10 a CPU hour it pays where an error costs more than 0.001, training not counted."),
        (0.0011, "is not shown to pay: +0.001 [-0.0012, +0.012]"),
        (0.0001, "does not pay: -0.009 [-0.0092, -0.008]"),
    ],
)
def test_prices_at_which_it_does_not_pay(price_per_error: float | None, said: str):
    one = BreakEven("lstm", "linear", Interval(10, 8, 20), 2.0, 3.6, 360.0, 10, price_per_error)
    assert said in one.sentences[-1]


def test_the_panel_holds_every_dearer_model_against_the_cheapest():
    right = {
        "linear": [True] * 60 + [False] * 40,
        "lstm": [True] * 90 + [False] * 10,
        "slow": [True] * 60 + [False] * 40,
    }
    costs = [
        cost("slow", milliseconds=9, cpu=9),
        cost("linear", milliseconds=1, cpu=1),
        cost("lstm", milliseconds=3, cpu=4),
    ]
    panel = cost_panel(
        costs, {name: answers(name, row) for name, row in right.items()}, meter=EnergyMeter(Path("nowhere"))
    )
    assert [model.name for model in panel.models] == ["linear", "lstm", "slow"]
    assert [(one.dearer, one.cheaper) for one in panel.break_evens] == [("lstm", "linear"), ("slow", "linear")]
    assert panel.break_evens[0].extra_milliseconds == 2
    assert panel.break_evens[0].extra_cpu_seconds == 3
    assert panel.sentences[-1] == "No joules: this machine has no energy counter below nowhere."
    assert "joules / 1,000" not in panel.table()[0]
    assert json.loads(json.dumps(panel.to_dict(), allow_nan=False))["models"][0]["name"] == "linear"


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf])
def test_a_price_that_is_none_is_refused(price: float):
    with pytest.raises(RequestError, match="price_per_error"):
        cost_panel([], {}, price_per_error=price)


def test_the_size_of_an_export_is_that_of_all_its_files(tmp_path: Path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"12345")
    (tmp_path / "variables" / "variables.index").write_bytes(b"123")
    assert export_bytes(tmp_path) == 8


# Energy: a folder laid out as the kernel's


def zone(root: Path, place: str, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{place}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    return folder / "energy_uj"


def test_joules_are_those_of_all_packages_and_of_nothing_twice(tmp_path: Path):
    first, second = zone(tmp_path, "0", "package-0", 100_000), zone(tmp_path, "1", "package-1", 200_000)
    zone(tmp_path, "0:0", "core", 50_000)
    zone(tmp_path, "2", "psys", 50_000)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    first.write_text("350000\n")
    second.write_text("450000\n")
    assert meter.why_not is None
    assert meter.joules(before, meter.read()) == 0.5


def test_a_counter_that_wrapped_around_goes_on(tmp_path: Path):
    counter = zone(tmp_path, "0", "package-0", 900_000)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    counter.write_text("100000\n")
    assert meter.joules(before, meter.read()) == pytest.approx(0.2)


def test_without_counters_there_are_no_joules_and_a_reason(tmp_path: Path):
    meter = EnergyMeter(tmp_path)
    assert meter.read() is None
    assert meter.joules(None, None) is None
    assert meter.why_not == f"this machine has no energy counter below {tmp_path}"


def test_a_counter_that_cannot_be_read_is_named(tmp_path: Path):
    counter = zone(tmp_path, "0", "package-0", 0)
    meter = EnergyMeter(tmp_path)
    before = meter.read()
    counter.unlink()
    counter.mkdir()  # reading it fails for root, too
    assert meter.joules(before, meter.read()) is None
    assert EnergyMeter(tmp_path).why_not == f"the energy counter {counter} cannot be read: Is a directory"


def test_joules_stand_in_the_speed_where_there_is_a_counter(tmp_path: Path):
    counter = zone(tmp_path, "0", "package-0", 0)

    class Counting:
        def predict(self, texts, batch_size=None):
            counter.write_text(str(int(counter.read_text()) + 1_000))

    speed = measure_speeds({"a": Counting()}, ["text"] * 4, rounds=3, meter=EnergyMeter(tmp_path))["a"]
    assert speed.joules == pytest.approx(0.001 / 4 * 1_000)
