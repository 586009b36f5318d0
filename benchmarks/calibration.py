"""How honest the probabilities are: coverage of the conformal sets, and calibration error, on test.

    python benchmarks/calibration.py
    python benchmarks/calibration.py --models linear --data trec6.parquet --data ag_news.parquet --seeds 5

Trains the models with their default settings on the embedded reviews, and on each file of `--data` (columns text and
label), once for each split seed. Prints a table of the targets and writes results.json to `--output`, where the logits
of each run stay: a run whose logits are there is not trained again. README.md tells what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from silent import Silent

from app.calibration import calibration_error_by_chance, expected_calibration_error, fit_temperature, softmax
from app.conformal import coverage_report, fit_threshold, prediction_sets

COVERAGE_WITHIN = 0.02
CALIBRATION_ERROR = 0.03
DRAWS = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, print, write. Exit code 1 when a target is missed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    chosen = _parser().parse_args(arguments)
    output = chosen.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    sources = ["rotten-tomatoes", *(str(_source(path.resolve(), chosen.resplit, output)) for path in chosen.data)]
    runs = []
    for source in sources:
        for model in chosen.models:
            for seed in range(chosen.seeds):
                runs.append(measure(logits_of(source, model, seed, output), chosen.coverage))
                runs[-1] |= {"data": Path(source).stem, "model": model, "seed": seed}
                _say(describe(runs[-1]))
    found = {"coverage": chosen.coverage, "runs": runs}
    (output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return report(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["linear", "lstm", "transformer"])
    parser.add_argument("--data", type=Path, action="append", default=[], help="file with the columns text and label")
    parser.add_argument("--seeds", type=int, default=3, help="0 to this, exclusive: of the splits and of training")
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--resplit", action="store_true", help="cut the test split of a parquet file anew, by seed")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/calibration"))
    return parser


def _source(path: Path, resplit: bool, output: Path) -> Path:
    """The file itself, or a copy of its rows without the column that says which split they are of."""
    if not resplit:
        return path
    copy = output / f"{path.stem}-resplit.parquet"
    pd.read_parquet(path)[["text", "label"]].to_parquet(copy)
    return copy


def logits_of(source: str, model: str, seed: int, output: Path) -> dict[str, np.ndarray]:
    """Logits and label ids of validation and test, trained where they are not on the disk yet."""
    file = output / f"{Path(source).stem}-{model}-{seed}.npz"
    if not file.exists():
        _say(f"{source}: training {model}, seed {seed} ...")
        with tempfile.TemporaryDirectory() as cache:
            np.savez(file, **train(source, model, seed, Path(cache)))
    with np.load(file) as saved:
        return dict(saved)


def train(source: str, model: str, seed: int, cache: Path) -> dict[str, np.ndarray]:
    """As `train.py` does, with the default settings."""
    from app.config import resolve_config
    from app.training import predict_logits, prepare
    from app.training import train as train_run

    data = {"source": source, "split_seed": seed}
    config = resolve_config(model, {}, [f"seed={seed}"], data)
    material = prepare(config, cache, Silent())
    run = train_run(config, material, lambda report: None)
    splits = material.splits
    return {
        "validation_logits": predict_logits(run.model, material.datasets.validation),
        "validation_label_ids": splits.validation.label_ids,
        "test_logits": run.test_logits,
        "test_label_ids": splits.test.label_ids,
    }


def measure(logits: dict[str, np.ndarray], coverage: float) -> dict[str, Any]:
    """Calibrate on validation as `app.training.train` does, and see how that holds on test."""
    validation_ids, test_ids = logits["validation_label_ids"], logits["test_label_ids"]
    temperature = fit_temperature(logits["validation_logits"], validation_ids)
    threshold = fit_threshold(validation_ids, softmax(logits["validation_logits"], temperature), coverage)
    probabilities = softmax(logits["test_logits"], temperature)
    return {
        "validation_rows": len(validation_ids),
        "temperature": temperature,
        "threshold": threshold,
        "accuracy": float((probabilities.argmax(axis=1) == test_ids).mean()),
        "sets": coverage_report(test_ids, prediction_sets(probabilities, threshold)).to_dict(),
        "calibration_error_before": expected_calibration_error(test_ids, softmax(logits["test_logits"])),
        "calibration_error": expected_calibration_error(test_ids, probabilities),
        "calibration_error_by_chance": float(calibration_error_by_chance(probabilities, draws=DRAWS).mean()),
    }


def describe(run: dict[str, Any]) -> str:
    """One run in one line."""
    sets = run["sets"]
    return (
        f"{run['data']} {run['model']} seed {run['seed']}: {sets['count']:,} texts, accuracy {run['accuracy']:.3f};"
        f" coverage {sets['coverage']:.3f} [{sets['coverage_low']:.3f}, {sets['coverage_high']:.3f}],"
        f" {sets['mean_set_size']:.2f} labels a set, {sets['single_share']:.0%} single and right on"
        f" {sets['single_accuracy'] or 0:.3f} of them; calibration error {run['calibration_error']:.3f}"
        f" (before {run['calibration_error_before']:.3f}, by chance {run['calibration_error_by_chance']:.3f})"
    )


def targets(found: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """What was aimed at: the question, the figure over all seeds, the target, whether it is met."""
    asked = found["coverage"]
    for data, model in dict.fromkeys((run["data"], run["model"]) for run in found["runs"]):
        runs = [run for run in found["runs"] if (run["data"], run["model"]) == (data, model)]
        coverages = [run["sets"]["coverage"] for run in runs]
        yield (
            f"{data}, {model}: coverage of the sets",
            _mean_and_each(coverages),
            f"{asked:.3f}, within {COVERAGE_WITHIN}",
            abs(float(np.mean(coverages)) - asked) <= COVERAGE_WITHIN,
        )
        errors = [run["calibration_error"] for run in runs]
        chance = float(np.mean([run["calibration_error_by_chance"] for run in runs]))
        yield (
            f"{data}, {model}: calibration error",
            f"{_mean_and_each(errors)}, by chance {chance:.3f}",
            f"at most {CALIBRATION_ERROR}",
            float(np.mean(errors)) <= CALIBRATION_ERROR,
        )


def _mean_and_each(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


def report(found: dict[str, Any]) -> int:
    """Print the table; return the exit code."""
    rows = list(targets(found))
    widths = [max(map(len, column)) for column in zip(*(row[:3] for row in rows), strict=True)]
    for *texts, is_met in rows:
        line = "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True))
        print(f"{line}  {'met' if is_met else 'MISSED'}")
    return 0 if all(row[3] for row in rows) else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
