"""The charts of the report: differences, seeds, calibration, risk and coverage, and the learning curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from app import wording
from app.analysis.learning_curve import LearningCurve
from app.calibration import Reliability
from app.report.svg import Plot, Strip, element, ticks, widened
from app.statistics import FloatArray, Interval

ROW = 26  # pixels of one line of a strip
CURVE_POINTS = 60  # of the learning curve's law


def difference_strip(intervals: Sequence[Interval], *, lower_is_better: bool, margin: float | None = None) -> Strip:
    """The scale that all these differences share, 0 always on it; to the right the first model is better."""
    ends = [end for one in intervals for end in (one.low, one.high, one.value)]
    low, high = widened([*ends, 0.0, *([] if margin is None else [margin, -margin])])
    return Strip(low, high, reverse=lower_is_better)


def difference_line(strip: Strip, found: Interval, class_: str, margin: float | None = None) -> Markup:
    """One line of a forest plot: 0, the interval with its ends, the value; behind it what counts as equivalent."""
    middle = ROW / 2
    shapes = []
    if margin is not None:
        low, high = sorted((strip.at(-margin), strip.at(margin)), key=_number)
        width = f"{_number(high) - _number(low):.2f}%"
        shapes.append(element("rect", x=low, width=width, y=0, height=ROW, class_="margin"))
    shapes.append(element("line", x1=strip.at(0), x2=strip.at(0), y1=0, y2=ROW, class_="zero"))
    shapes += _interval(strip, found, middle, class_)
    return strip.svg(*shapes, height=ROW)


def difference_axis(strip: Strip, *, points: bool) -> Markup:
    """The scale below a forest plot, in points of percent or in the metric's own unit."""
    shapes = []
    for value in ticks(strip.low, strip.high, 4):
        shown = f"{100 * value:+.3g}" if points else f"{value:+.3g}"
        shapes.append(element("line", x1=strip.at(value), x2=strip.at(value), y1=0, y2=5, class_="axis"))
        said = "0" if abs(value) < 1e-12 else shown
        shapes.append(element("text", said, x=strip.at(value), y=18, text_anchor="middle"))
    return strip.svg(element("line", x1="0%", x2="100%", y1=0, y2=0, class_="axis"), *shapes, height=24)


def seeds_strip(values: Mapping[str, Sequence[float]], intervals: Sequence[Interval]) -> Strip:
    """The scale that the accuracies of all seeds of all models share."""
    every = [value for of_model in values.values() for value in of_model]
    return Strip(*widened([*every, *(end for one in intervals for end in (one.low, one.high))]))


def seeds_line(strip: Strip, values: Sequence[float], mean: Interval, class_: str) -> Markup:
    """Every seed as a ring, and below them their mean with its interval."""
    rings = [element("circle", cx=strip.at(value), cy=9, r=4.5, class_=f"ring {class_}") for value in values]
    return strip.svg(*rings, *_interval(strip, mean, ROW - 3, class_), height=ROW + 6)


def seeds_axis(strip: Strip) -> Markup:
    """The scale below the seeds: accuracy."""
    shapes = []
    for value in ticks(strip.low, strip.high, 4):
        shapes.append(element("line", x1=strip.at(value), x2=strip.at(value), y1=0, y2=5, class_="axis"))
        shapes.append(element("text", wording.decimals(value), x=strip.at(value), y=18, text_anchor="middle"))
    return strip.svg(element("line", x1="0%", x2="100%", y1=0, y2=0, class_="axis"), *shapes, height=24)


def reliability_chart(before: Reliability | None, after: Reliability, name: str, class_: str) -> Markup:
    """Accuracy against confidence by bin; the diagonal is what confidence promises, larger dots more texts."""
    drawn = [(found, kind) for found, kind in ((before, "before"), (after, "after")) if found is not None]
    seen = np.concatenate([part[found.count > 0] for found, _ in drawn for part in (found.confidence, found.accuracy)])
    low = max(0.0, np.floor(10 * float(seen.min()) - 0.5) / 10)
    plot = Plot(x=(low, 1.0), y=(low, 1.0))
    shapes = [plot.line([(low, low), (1, 1)], "ideal")]
    for found, kind in drawn:
        filled = np.flatnonzero(found.count > 0)
        points = [(float(found.confidence[bin_]), float(found.accuracy[bin_])) for bin_ in filled]
        shapes.append(plot.line(points, f"curve {class_} {kind}"))
        largest = float(found.count.max())
        for bin_, (confidence, accuracy) in zip(filled, points, strict=True):
            radius = 2 + 5 * float(np.sqrt(found.count[bin_] / largest))
            shapes.append(plot.dot(confidence, accuracy, f"dot {class_} {kind}", radius))
    errors = ", ".join(f"{wording.decimals(found.expected_calibration_error)} {kind}" for found, kind in drawn)
    said = f"{name}: accuracy against confidence; expected calibration error {errors}"
    return plot.draw(*shapes, x_label="confidence", y_label="accuracy", said=said, x_text=_percent, y_text=_percent)


def risk_coverage_chart(curves: Mapping[str, tuple[FloatArray, FloatArray]], classes: Mapping[str, str]) -> Markup:
    """Share of errors among the answers that are given, by the share of texts that are answered at all.

    `curves` name -> coverage float[n], risk float[n], most confident answers first.
    """
    highest = max((float(np.nanmax(risk)) for _, risk in curves.values() if len(risk)), default=1.0)
    plot = Plot(x=(0.0, 1.0), y=(0.0, max(highest * 1.1, 0.01)), width=400, height=250)
    shapes = []
    for name, (coverage, risk) in curves.items():
        every = max(1, len(coverage) // 200)
        kept = sorted({*range(0, len(coverage), every), len(coverage) - 1})
        points = [(float(coverage[place]), float(risk[place])) for place in kept]
        shapes.append(plot.line(points, f"curve {classes[name]}"))
    said = f"Errors among answered texts, by the share of texts answered: {', '.join(curves)}"
    return plot.draw(
        *shapes, x_label="texts answered", y_label="errors among them", said=said, x_text=_percent, y_text=_percent
    )


def learning_chart(curve: LearningCurve, name: str, class_: str) -> Markup:
    """Accuracy by training rows: measured points, the law through them, and what more rows are expected to give."""
    rows = [point.rows for point in curve.points] + [forecast.rows for forecast in curve.forecasts]
    x = (0.0, max(rows) * 1.05)
    accuracies = [*(point.accuracy for point in curve.points), *(forecast.accuracy for forecast in curve.forecasts)]
    ends = [end for accuracy in accuracies for end in (accuracy.low, accuracy.high)]
    plot = Plot(x=x, y=widened(ends), width=400, height=250)
    last = curve.points[-1]
    doubt = [(float(last.rows), last.accuracy.low, last.accuracy.high)]
    doubt += [(float(one.rows), one.accuracy.low, one.accuracy.high) for one in curve.forecasts]
    along = np.linspace(min(rows), max(rows), CURVE_POINTS)
    law = list(zip(along.tolist(), (1 - curve.law.error(along)).tolist(), strict=True))
    shapes = [plot.area(doubt, f"doubt {class_}"), plot.line(law, f"curve {class_} before")]
    for point in curve.points:
        shapes.append(
            plot.line([(point.rows, point.accuracy.low), (point.rows, point.accuracy.high)], f"reach {class_}")
        )
        shapes.append(plot.dot(point.rows, point.accuracy.value, f"dot {class_} after"))
    for one in curve.forecasts:
        shapes.append(plot.dot(one.rows, one.accuracy.value, f"ring {class_}", 4.0))
    return plot.draw(
        *shapes,
        x_label="training rows",
        y_label="accuracy",
        said=f"{name}: {' '.join(curve.sentences)}",
        x_text=_thousands,
        y_text=_percent,
    )


def _interval(strip: Strip, found: Interval, y: float, class_: str) -> list[Markup]:
    low, high, value = strip.at(found.low), strip.at(found.high), strip.at(found.value)
    return [
        element("line", x1=low, x2=high, y1=y, y2=y, class_=f"reach {class_}"),
        *(element("line", x1=end, x2=end, y1=y - 4, y2=y + 4, class_=f"reach {class_}") for end in (low, high)),
        element("circle", cx=value, cy=y, r=4.5, class_=f"dot {class_} after"),
    ]


def _number(place: str) -> float:
    return float(place.removesuffix("%"))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _thousands(count: float) -> str:
    return f"{count:,.0f}"
