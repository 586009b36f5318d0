"""Latency over rate, all servers in one picture."""

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
