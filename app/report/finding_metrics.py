"""What was found of each model as MLflow metrics: figures by which many runs can be sorted and charted."""

from __future__ import annotations

import math

from app.analysis.costs import PER
from app.compared import Compared, Findings

# What stands before a slash is a section of its own in MLflow's charts.
SECTION = "comparison"
CURVE_SECTION = "learning_curve"
COVERAGE = 0.9


def finding_metrics(compared: Compared) -> dict[str, dict[str, float]]:
    """The findings on each model by metric: `comparison/risk_area`, `learning_curve/accuracy_0.5`, and so on.

    Errors, gaps and shares are fractions of 1; p is corrected by Holm. What could not be looked at, is undefined or
    infinite is left out.
    """
    found = compared.findings
    metrics: dict[str, dict[str, float]] = {}
    for name in compared.names:
        values = {**_answering(found, name), **_splits(found, name), **_costs(found, name), **_tests(compared, name)}
        named = {f"{SECTION}/{key}": value for key, value in values.items()}
        points = found.curves[name].points if name in found.curves else ()
        named |= {f"{CURVE_SECTION}/accuracy_{point.share:g}": point.accuracy.value for point in points}
        there = {key: float(value) for key, value in named.items() if value is not None}
        metrics[name] = {key: value for key, value in there.items() if math.isfinite(value)}
    return metrics


def _answering(found: Findings, name: str) -> dict[str, float | None]:
    """How far its confidence can be trusted, where it does worst, and what it does not read."""
    calibration, risk = found.calibrations[name], found.risks[name]
    before = calibration.before
    gaps = [model.gap for one in found.slices for model in one.models if model.model == name]
    return {
        "calibration_error_before": None if before is None else before.expected_calibration_error,
        "calibration_error_after": calibration.after.expected_calibration_error,
        "risk_area": risk.area,
        "accuracy_at_90_coverage": next(one.accuracy.value for one in risk.at if one.coverage == COVERAGE),
        # As slices are ranked: the one that is worst at least, not the one that chance made look worst.
        "worst_slice_gap": max(gaps, key=lambda gap: gap.low).value if gaps else None,
        "pieces_lost": found.ledgers[name].total.pieces_lost,
    }


def _splits(found: Findings, name: str) -> dict[str, float | None]:
    """What is wrong with the test split, and what that does to the model."""
    metrics: dict[str, float | None] = {}
    if found.leaks is not None:
        shares = (one.share.value for one in found.leaks.leaked if (one.split, one.other_split) == ("test", "train"))
        metrics["leak_share"] = next(shares, None)
        scores = (one.without_twins.value for one in found.leaks.scores if one.model == name)
        metrics["accuracy_without_leaks"] = next(scores, None)
    if "test" in found.suspects:
        metrics["label_suspects_test"] = len(found.suspects["test"].rows)
    return metrics


def _costs(found: Findings, name: str) -> dict[str, float | None]:
    """What it costs, where the models were timed beside each other."""
    cost = None if found.costs is None else next((one for one in found.costs.models if one.name == name), None)
    if cost is None:
        return {}
    joules = cost.speed.joules
    return {
        "p95_milliseconds": cost.speed.p95_milliseconds,
        "texts_per_second": cost.speed.texts_per_second,
        "export_megabytes": cost.export_bytes / 1e6,
        "joules_per_text": None if joules is None else joules / PER,
    }


def _tests(compared: Compared, name: str) -> dict[str, float | None]:
    """The p of the test against every other model."""
    found: dict[str, float | None] = {}
    for pair in compared.comparison.pairs:
        if name in (pair.first, pair.second):
            other = pair.second if name == pair.first else pair.first
            found[f"p_against_{other}"] = pair.adjusted_p_value
    return found
