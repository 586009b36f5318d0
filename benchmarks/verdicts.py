"""How often the verdict is right: simulated pairs of models whose true difference is known.

    python benchmarks/verdicts.py
    python benchmarks/verdicts.py --settings ab --pairs 200

Every pair goes the way that `train` sends it: the same intervals, tests and outcome, of the accuracy. Prints a table of
the targets and writes results.json to `--output`. README.md tells what the settings are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from app.pairs import Pair, accuracy_side, make_pair
from app.power import SIGNIFICANCE, mcnemar_power

BoolArray = npt.NDArray[np.bool_]
REPETITIONS = 20
# The tests of equivalence are normal approximations that aim at 5%; two standard errors of 2,000 pairs are 1 point.
EQUIVALENT_AT_MOST = 0.06


@dataclass(frozen=True)
class OneSeed:
    """Two trained models; only_first, only_second: shares of texts that just one of them has right."""

    title: str
    count: int
    only_first: float
    only_second: float
    seeds: tuple[int, int] = (1, 1)

    @property
    def difference(self) -> float:
        return self.only_first - self.only_second

    @property
    def power(self) -> float:
        """What the power function lets expect."""
        return mcnemar_power(self.only_first + self.only_second, self.difference, self.count)

    def draw(self, chance: np.random.Generator) -> tuple[BoolArray, BoolArray]:
        """Whether the models are right on each text, bool[1, count]; of the other texts both have four in five."""
        place = chance.random((1, self.count))
        only_first = place < self.only_first
        only_second = ~only_first & (place < self.only_first + self.only_second)
        both = ~only_first & ~only_second & (chance.random((1, self.count)) < 0.8)
        return only_first | both, only_second | both


@dataclass(frozen=True)
class Seeds:
    """Two ways of training, each with some seeds: a text is right where ease, seed and chance together are above 0.

    gain: how much easier texts are for the first. agreement: correlation of what is easy for the two. seed_spread:
    standard deviation of a seed's ease; the chance of a seed on a text has 0.45, that of the texts' ease is 1.
    """

    title: str
    count: int
    seeds: tuple[int, int]
    gain: float
    agreement: float
    seed_spread: float
    power: None = None  # the test of several seeds has no power function

    @property
    def difference(self) -> float:
        spread = np.sqrt(1 + self.seed_spread**2 + 0.45**2)
        return float(stats.norm.cdf((0.7 + self.gain) / spread) - stats.norm.cdf(0.7 / spread))

    def draw(self, chance: np.random.Generator) -> tuple[BoolArray, BoolArray]:
        """Whether each seed is right on each text, bool[seeds, count]."""
        ease = chance.normal(size=self.count)
        other = self.agreement * ease + np.sqrt(1 - self.agreement**2) * chance.normal(size=self.count)

        def right(count: int, of_texts: npt.NDArray[np.float64]) -> BoolArray:
            of_seeds = self.seed_spread * chance.normal(size=(count, 1))
            return of_texts + of_seeds + 0.45 * chance.normal(size=(count, self.count)) > 0

        return right(self.seeds[0], 0.7 + self.gain + ease), right(self.seeds[1], 0.7 + other)


SETTINGS: dict[str, OneSeed | Seeds] = {
    "a": OneSeed("200 texts, equal", 200, 0.06, 0.06),
    "b": OneSeed("200 texts, 8 points apart", 200, 0.12, 0.04),
    "c": OneSeed("1,289 texts, equal", 1289, 0.08, 0.08),
    "d": OneSeed("1,289 texts, 3 points apart", 1289, 0.095, 0.065),
    "e": Seeds("300 texts, 5 seeds each of the same way", 300, (5, 5), 0.0, 1.0, 0.03),
    "f": Seeds("300 texts, 5 seeds each, apart", 300, (5, 5), 0.2, 0.8, 0.03),
    "g": Seeds("1,000 texts, 3 seeds each, that matter, of the same way", 1000, (3, 3), 0.0, 1.0, 0.06),
    "h": Seeds("300 texts, 5 seeds against 1 of the same way", 300, (5, 1), 0.0, 1.0, 0.03),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, write. Exit code 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default="".join(SETTINGS), help=f"of {''.join(SETTINGS)}")
    parser.add_argument("--pairs", type=int, default=2000, help="simulated pairs a setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/verdicts"))
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"pairs": chosen.pairs, "seed": chosen.seed}
    for name in chosen.settings:
        started = time.monotonic()
        found[name] = simulate(SETTINGS[name], chosen.pairs, [chosen.seed, ord(name)])
        found[name]["seconds"] = round(time.monotonic() - started, 1)
        print(f"({name}) {found[name]}", file=sys.stderr, flush=True)
        (chosen.output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return report([row for name in chosen.settings for row in targets(name, found[name])])


def simulate(setting: OneSeed | Seeds, pairs: int, seed: Sequence[int]) -> dict[str, Any]:
    """Shares of the simulated pairs, and what they are held against."""
    chance = np.random.default_rng(seed)
    truth = setting.difference
    judged = [judge(*setting.draw(chance), number, truth) for number in range(pairs)]
    outcomes = [pair.outcome for pair in judged]
    decided = [pair.outcome in ("better", "worse") for pair in judged]
    return {
        "title": setting.title,
        "seeds": list(setting.seeds),
        "difference": truth,
        "covered": float(np.mean([pair.difference.low <= truth <= pair.difference.high for pair in judged])),
        "decided": float(np.mean(decided)),
        "wrong": float(np.mean(decided if truth == 0 else [outcome == "worse" for outcome in outcomes])),
        "in_repetitions": float(np.add.reduceat(decided, range(0, pairs, REPETITIONS)).astype(bool).mean()),
        "power": setting.power if truth else None,
        "equivalent": float(np.mean([pair.equivalence.shown for pair in judged])) if truth else None,
    }


def judge(first: BoolArray, second: BoolArray, seed: int, margin: float) -> Pair:
    """The pair of two models; all texts have label 0. A margin of exactly the true difference is no equivalence."""
    label_ids = np.zeros(first.shape[1], dtype=np.int64)
    sides = [
        accuracy_side(name, label_ids, (~right).astype(np.int64), seed=seed)
        for name, right in (("first", first), ("second", second))
    ]
    return make_pair(sides[0], sides[1], margin=margin or None)


def targets(name: str, found: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """What was aimed at: the question, the figure, the target, whether it is met."""
    title = f"({name}) {found['title']}"
    covered, wrong = found["covered"], found["wrong"]
    yield f"{title}: intervals that hold the truth", f"{covered:.1%}", "93% to 97%", 0.93 <= covered <= 0.97
    yield f"{title}: false 'better'", f"{wrong:.1%}", "at most 5%", wrong <= SIGNIFICANCE
    if found["seeds"] == [5, 5] and not found["difference"]:
        seldom = found["in_repetitions"]
        yield f"{title}: any in {REPETITIONS} repetitions", f"{seldom:.1%}", "at most 5%", seldom <= 0.05
    if found["power"] is not None:
        decided, power = found["decided"], found["power"]
        near = abs(decided - power) <= 0.05
        yield f"{title}: power, against {power:.1%}", f"{decided:.1%}", "within 5 points", near
    if found["equivalent"] is not None:
        said = found["equivalent"]
        yield f"{title}: false equivalence at its margin", f"{said:.1%}", "at most 6%", said <= EQUIVALENT_AT_MOST


def report(rows: Sequence[tuple[str, str, str, bool]]) -> int:
    """Print the table; return the exit code."""
    widths = [max(map(len, column)) for column in zip(*(row[:3] for row in rows), strict=True)]
    for *texts, is_met in rows:
        line = "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True))
        print(f"{line}  {'met' if is_met else 'MISSED'}")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
