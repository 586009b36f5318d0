"""Is one configuration, trained twice with five seeds each, ever told apart? Real trainings on a small set.

    python benchmarks/same_configuration.py
    python benchmarks/same_configuration.py --model transformer --repetitions 20 --seeds 5

A part of the embedded reviews, split by film; in every repetition all seeds are new. Prints each verdict, writes
results.json to `--output`; exit code 1 when a pair was called better or worse. `verdicts.py` simulates what is too rare
to be seen in so few repetitions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from silent import Silent

from app.comparison import Contender, compare
from app.config import RunConfig, resolve_config
from app.metrics import evaluate_seeds
from app.training import Material, prepare, train
from data.sources import DataConfig, load_rows

SETTINGS = ("data.test_fraction=0.25", "model.epochs=5", "model.learning_rate=0.005", "vocabulary.size=2000")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, compare, print, write. Exit code 1 when equal configurations were told apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lstm")
    parser.add_argument("--rows", type=int, default=2000, help="of all splits together")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5, help="of either side")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/same_configuration"))
    chosen = parser.parse_args(arguments)
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        config = resolve_config(
            chosen.model,
            {},
            [*SETTINGS, f"data.source={write_sample(Path(folder), chosen.rows)}"],
            {"group_column": "film"},
        )
        material = prepare(config, Path(folder), Silent())
        found = [repetition(config, material, number, chosen.seeds) for number in range(chosen.repetitions)]
    (chosen.output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return report(found)


def write_sample(folder: Path, rows: int) -> Path:
    """Write some of the reviews as a file, the same on every run."""
    frame = load_rows(DataConfig()).frame
    part = frame.iloc[np.sort(np.random.default_rng(0).choice(len(frame), rows, replace=False))]
    part[["text", "label", "group"]].rename(columns={"group": "film"}).to_csv(folder / "part.csv", index=False)
    return folder / "part.csv"


def repetition(config: RunConfig, material: Material, number: int, seeds: int) -> dict[str, Any]:
    """Train both sides, each seed once, and return what the comparison says."""
    first = 2 * seeds * number
    sides = [
        contender(name, config, material, range(start, start + seeds))
        for name, start in (("one", first), ("other", first + seeds))
    ]
    (pair,) = compare(sides).pairs
    accuracies = {side.name: (side.predicted == side.label_ids).mean(axis=1).tolist() for side in sides}
    print(f"{number + 1:>3}  {pair.outcome:<10} {pair.difference.value:+.3f}  p {pair.p_value:.3f}", file=sys.stderr)
    return {"outcome": pair.outcome, "accuracies": accuracies, **pair.to_dict()}


def contender(name: str, config: RunConfig, material: Material, seeds: range) -> Contender:
    """Train one side."""
    runs = [train(config.model_copy(update={"seed": seed}), material, lambda report: None) for seed in seeds]
    probabilities = np.stack([run.test_probabilities for run in runs])
    label_ids, names = material.splits.test.label_ids, material.splits.label_names
    return Contender(name, label_ids, probabilities, evaluate_seeds(label_ids, probabilities, names), 0.0, 0.0)


def report(found: Sequence[dict[str, Any]]) -> int:
    """Print how often each outcome came; return the exit code."""
    outcomes = Counter(one["outcome"] for one in found)
    told_apart = outcomes["better"] + outcomes["worse"]
    print(", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common()))
    print(f"told apart in {told_apart} of {len(found)} repetitions; aimed at 0: {'MISSED' if told_apart else 'met'}")
    return 1 if told_apart else 0


if __name__ == "__main__":
    sys.exit(main())
