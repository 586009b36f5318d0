"""The figures of the benchmarks: latency over rate, and how cost grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = {"valence": "#0b6e4f", "valence_batching": "#2a4d9b", "mlflow": "#b3541e"}
NAMES = {
    "valence": "Valence, embedded server",
    "valence_batching": "the same with --enable_batching",
    "mlflow": "mlflow models serve",
}


def plot_latency(found: dict[str, Any], path: Path) -> None:
    """Draw the 50th and 99th percentile of each step of part (a), and the limit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, colour in COLOURS.items():
        steps = _best_tries(found[name]["steps"])
        rates = [step["due_rate"] for step in steps]
        axes.plot(rates, [step["p99_ms"] for step in steps], "o-", color=colour, label=f"{NAMES[name]}, p99")
        axes.plot(rates, [step["p50_ms"] for step in steps], "s:", color=colour, label=f"{NAMES[name]}, p50")
        axes.axvline(found[name]["highest_rate"], color=colour, linewidth=0.8, alpha=0.6)
    axes.axhline(found["limit_ms"], color="grey", linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="requests due a second (one text each)", ylabel="latency, ms")
    axes.set_title("Latency from when a request was due, until it was answered")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _best_tries(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One step a rate: a rate that failed was tried twice."""
    best: dict[float, dict[str, Any]] = {}
    for step in sorted(steps, key=lambda step: step["p99_ms"]):
        best.setdefault(step["due_rate"], step)
    return sorted(best.values(), key=lambda step: step["due_rate"])


def plot_growth(found: dict[str, Any], path: Path) -> None:
    """Draw time a step over sequence length, and time and memory of the data over rows, on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (by_length, by_rows) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name, lengths in found["length"].items():
        points = sorted((int(length), sorted(one["seconds"])) for length, one in lengths.items())
        milliseconds = [1e3 * seconds[len(seconds) // 2] for _, seconds in points]
        by_length.plot([length for length, _ in points], milliseconds, "o-", label=name)
    by_length.set(xscale="log", yscale="log", xlabel="pieces a row", ylabel="ms a training step")
    by_length.set_title("A step, 16 rows of one length")
    rows = sorted((int(count), one) for count, one in found["rows"].items())
    counts = [count for count, _ in rows]
    for key, label in (("prepare", "read, split, tokenise: s"), ("pass", "one pass over batches: s")):
        by_rows.plot(counts, [one[key] for _, one in rows], "o-", label=label)
    by_rows.plot(counts, [one["peak_mb"] for _, one in rows], "s:", label="peak of memory: MB")
    by_rows.set(xscale="log", yscale="log", xlabel="rows")
    by_rows.set_title("The data, 140 words a text")
    for axes in (by_length, by_rows):
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
