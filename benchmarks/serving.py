"""How fast the embedded server is: against `mlflow models serve`, against no server at all, and by its settings.

    python benchmarks/serving.py --export artifacts/exports/rotten-tomatoes
    python benchmarks/serving.py --parts c --quick

Trains a model first if no `--export` is given. Everything runs on this machine, over loopback. Prints a table of the
targets and writes results.json, latency.png and the servers' logs to `--output`. README.md tells what each part is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from plots import plot_latency
from server_choices import server_choices
from serving_models import newest_version, train
from serving_parts import FULL, QUICK, Material, against_mlflow, batching, over_http, toy

PARTS = "abcde"
PACKAGES = ("tensorflow", "mlflow", "uvicorn", "uvloop", "httptools", "numpy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write. Exit code 1 when a target is missed."""
    chosen = _parser().parse_args(arguments)
    output = chosen.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    export = newest_version(chosen.export) if chosen.export else train(chosen.model, output)
    material = Material(export, output, QUICK if chosen.quick else FULL, _say)
    found: dict[str, Any] = {"machine": machine(), "export": str(export), "size": vars(material.size)}
    measure = {
        "a": lambda: against_mlflow(material, chosen.mlflow_workers),
        "b": lambda: over_http(material),
        "c": lambda: toy(material),
        "d": lambda: server_choices(material),
        "e": lambda: batching(material),
    }
    for part in chosen.parts:
        found[part] = measure[part]()
        (output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if "a" in found:
        plot_latency(found["a"], output / "latency.png")
    return report(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", type=Path, help="version folder, or folder of versions")
    parser.add_argument("--model", default="linear", help="what to train where there is no --export: linear, lstm, ...")
    parser.add_argument("--parts", default=PARTS, help="of abcde")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/serving"))
    parser.add_argument("--mlflow-workers", type=int, default=1, help="1 is MLflow's own default")
    parser.add_argument("--quick", action="store_true", help="a second a step: does it run at all")
    return parser


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def targets(found: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """What was aimed at: the question, the figure, the target, whether it is met."""
    if "a" in found:
        yield from _against_mlflow(found["a"])
    if "b" in found:
        cost = found["b"]["cost_ms"]
        yield "(b) over HTTP beyond calling in process", f"{cost:.2f} ms", "at most 1.0 ms", cost <= 1.0
    if "c" in found:
        rate = found["c"]["32"]["rate"]
        yield "(c) toy, 32 connections", f"{rate:,.0f}/s", "at least 2,000/s", rate >= 2000


def _against_mlflow(found: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    ours, theirs = found["valence"], found["mlflow"]
    for name, title in (("valence", ""), ("valence_batching", ", --enable_batching")):
        rates = found[name]["highest_rate"], theirs["highest_rate"]
        yield (
            f"(a) rate with p99 within {found['limit_ms']:.0f} ms, against MLflow{title}",
            f"{rates[0]:,.0f}/s to {rates[1]:,.0f}/s: {rates[0] / max(rates[1], 1e-9):.1f} times",
            "at least 3 times",
            rates[0] >= 3 * rates[1] > 0,
        )
    for load, title in (("low", f"at {found['low_rate']:.0f}/s"), ("one_connection", "one connection")):
        medians = ours[load]["p50_ms"], theirs[load]["p50_ms"]
        yield (
            f"(a) median latency, {title}, against MLflow",
            f"{medians[0]:.2f} ms to {medians[1]:.2f} ms: {medians[0] / medians[1]:.2f} of it",
            "at most 0.5 of it",
            2 * medians[0] <= medians[1],
        )


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
