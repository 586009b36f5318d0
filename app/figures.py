"""Pictures of one run, for MLflow and for the eye: pure functions from arrays to a matplotlib Figure.

No pyplot: its global state leaks figures in a long process and wants a display. Colours are those of
Okabe & Ito, 2008, which readers with any kind of colour vision can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn import metrics as sklearn_metrics

from app.calibration import check_probabilities, reliability
from app.metrics import Evaluation

BLUE, ORANGE, GREEN, RED, PINK, SKY, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000",
)  # fmt: skip
GREY = "#767676"
LINES = [(colour, style) for style in ("-", "--") for colour in (BLUE, ORANGE, GREEN, RED, PINK, SKY)]

# More cells than this cannot be read as numbers; the colours alone stay.
MOST_NUMBERED_CLASSES = 20
MOST_CURVES = 10
LABEL_LENGTH = 18
# Families with Chinese, Japanese and Korean glyphs, as the common systems have them.
WIDE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Arial Unicode MS",
)  # fmt: skip


@lru_cache(maxsize=1)
def font_families() -> tuple[str, ...]:
    """matplotlib's own font, then those of `WIDE_FONTS` that this machine has."""
    installed = set(font_manager.get_font_names())
    return ("DejaVu Sans", *(name for name in WIDE_FONTS if name in installed))


@lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    """The code points that some font of `font_families` has a glyph for."""
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in font_families()]
    return frozenset(code for font in fonts for code in font.get_charmap())


def shown(label: str, length: int = LABEL_LENGTH) -> str:
    """A label as it can be drawn: one line of at most `length` characters, what no font has as its code."""
    text = " ".join(label.split()) or "(blank)"
    letters = [letter if ord(letter) in _drawable() else ascii(letter)[1:-1] for letter in text]
    kept = letters
    # The middle goes: labels that share a long beginning often differ at the end.
    for size in range(len(letters), -1, -1):
        if sum(map(len, kept)) <= length:
            break
        end = size // 3
        kept = [*letters[: size - end], "…", *letters[len(letters) - end :]]
    return "".join(kept).replace("$", r"\$")  # a pair of bare dollars would be read as mathematics


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Counts of the true against the predicted label; colours: the share of the true label."""
    counts, classes = evaluation.confusion, len(evaluation.label_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(16.0, 3.4 + 0.52 * classes)
    figure = Figure(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [shown(name) for name in evaluation.label_names]
    # Points of height that a row has, so that neighbours never overlap.
    size = min(9.0, 0.7 * 72 * side / classes)
    font: dict[str, Any] = {"fontfamily": list(font_families()), "fontsize": size}
    upright = classes > 3
    axes.set_xticks(range(classes), names, rotation=90 if upright else 0, **font)
    axes.set_yticks(range(classes), names, **font)
    axes.set(xlabel="predicted label", ylabel="true label")
    axes.set_title(f"Confusion matrix, {evaluation.count:,} test examples")
    if classes <= MOST_NUMBERED_CLASSES:
        _number_cells(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=ticker.PercentFormatter(1.0))
    bar.set_label("share of the true label's examples")
    return figure


def _number_cells(axes: Axes, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)


def reliability_diagram(label_ids: npt.ArrayLike, before: npt.ArrayLike, after: npt.ArrayLike) -> Figure:
    """Accuracy by confidence before and after the temperature, above the examples in each bin.

    label_ids int[n]; before and after: probabilities float[n, c] of the same examples.
    """
    figure = Figure(figsize=(6.4, 6.4), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
    drawings = (("before temperature", before, ORANGE, "s--", 1), ("after temperature", after, BLUE, "o-", 2))
    for name, probabilities, colour, style, place in drawings:
        bins = reliability(label_ids, probabilities)
        filled = bins.count > 0
        label = f"{name}: calibration error {bins.expected_calibration_error:.3f}"
        upper.plot(bins.confidence[filled], bins.accuracy[filled], style, color=colour, label=label)
        width = (bins.high - bins.low) * 0.4
        lower.bar(bins.low + width * (place - 0.75), bins.count, width, align="edge", color=colour)
    upper.set(title="Reliability: does confidence mean what it says?", ylabel="accuracy")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    lower.set(xlabel="confidence (probability of the predicted label)", ylabel="test examples")
    upper.legend(loc="upper left", frameon=False)
    _plain(upper, lower)
    return figure


def roc_curves(label_ids: npt.ArrayLike, probabilities: npt.ArrayLike, label_names: Sequence[str]) -> Figure:
    """True against false positive rate: of label id 1 for two classes, else of each class against the rest.

    label_ids int[n], probabilities float[n, c]. More than `MOST_CURVES` classes: the largest and the mean.
    """

    def curve(positive: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64]) -> _Curve:
        false_rate, true_rate, _ = sklearn_metrics.roc_curve(positive, probability)
        return false_rate, true_rate, float(sklearn_metrics.auc(false_rate, true_rate))

    figure, axes = _square("ROC", "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    _draw_curves(axes, curve, "area", label_ids, probabilities, label_names)
    axes.legend(loc="lower right", **_legend())
    return figure


def precision_recall_curves(
    label_ids: npt.ArrayLike, probabilities: npt.ArrayLike, label_names: Sequence[str]
) -> Figure:
    """Precision against recall: of label id 1 for two classes, else of each class against the rest.

    label_ids int[n], probabilities float[n, c]. More than `MOST_CURVES` classes: the largest and the mean.
    """

    def curve(positive: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64]) -> _Curve:
        precision, recall, _ = sklearn_metrics.precision_recall_curve(positive, probability)
        average = float(sklearn_metrics.average_precision_score(positive, probability))
        return recall[::-1], precision[::-1], average

    figure, axes = _square("Precision and recall", "recall", "precision")
    _draw_curves(axes, curve, "average precision", label_ids, probabilities, label_names)
    axes.legend(loc="lower left", **_legend())
    return figure


_Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]  # horizontal, vertical, summary


def _draw_curves(
    axes: Axes,
    curve: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float64]], _Curve],
    summary: str,
    label_ids: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    label_names: Sequence[str],
) -> None:
    """One line a class; a class that no example has, or all have, has no curve."""
    ids, values = check_probabilities(label_ids, probabilities)
    support = np.bincount(ids, minlength=values.shape[1])
    class_ids = [1] if values.shape[1] == 2 else list(np.argsort(-support, kind="stable"))
    curves = {k: curve(ids == k, values[:, k]) for k in class_ids if 0 < support[k] < len(ids)}
    for class_id, (colour, style) in zip(list(curves)[:MOST_CURVES], LINES, strict=False):
        across, up, value = curves[class_id]
        label = f"{shown(label_names[class_id])}: {summary} {value:.3f}"
        axes.plot(across, up, style, color=colour, label=label)
    if not curves:
        axes.plot([], [], label="no curve: all test examples have one label")
    if len(curves) > MOST_CURVES:
        grid = np.linspace(0, 1, 201)
        mean = np.mean([np.interp(grid, across, up) for across, up, _ in curves.values()], axis=0)
        value = float(np.mean([value for _, _, value in curves.values()]))
        label = f"mean of all {len(curves)}: {summary} {value:.3f}"
        axes.plot(grid, mean, color=BLACK, linewidth=2.5, label=label)
        axes.set_title(f"{axes.get_title()}, the {MOST_CURVES} largest of {len(label_names)} classes")


def _square(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 6.0), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=across, ylabel=up, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    _plain(axes)
    return figure, axes


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss by epoch, the best epoch marked, and the learning rate beside it where it is known.

    history: "loss" and, where there, "validation_loss" with one value an epoch; "learning_rate" with any
    number of values evenly spread over the same epochs (one an epoch, or one a step).
    """
    rates = list(history.get("learning_rate", ()))
    figure = Figure(figsize=(6.4, 5.6 if rates else 4.2), dpi=120, layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1)) if rates else [figure.subplots()]
    epochs = len(history["loss"])
    axes[0].plot(range(1, epochs + 1), history["loss"], "s--", color=ORANGE, label="training")
    if history.get("validation_loss"):
        _draw_validation(axes[0], history["validation_loss"])
    axes[0].set(title="Training", ylabel="loss (nats per example)")
    axes[0].legend(frameon=False)
    if rates:
        # Each rate stands at the end of its share of the epochs, as a loss stands at the end of its epoch.
        axes[1].plot(np.arange(1, len(rates) + 1) * epochs / len(rates), rates, color=GREEN)
        axes[1].set(ylabel="learning rate", ylim=(0, None))
        axes[1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes[-1].set(xlabel="epoch", xlim=(0, epochs + 0.5))
    axes[-1].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    _plain(*axes)
    return figure


def _draw_validation(axes: Axes, losses: Sequence[float]) -> None:
    axes.plot(range(1, len(losses) + 1), losses, "o-", color=BLUE, label="validation")
    if not any(math.isfinite(loss) for loss in losses):
        return
    best = int(np.nanargmin(losses))
    label = f"best: epoch {best + 1}, {losses[best]:.3f}"
    axes.axvline(best + 1, color=GREY, linestyle=":", label=label)


def _plain(*several: Axes) -> None:
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.9")
        axes.set_axisbelow(True)


def _legend() -> dict[str, Any]:
    font = {"family": list(font_families()), "size": 8}
    return {"framealpha": 0.85, "edgecolor": "none", "prop": font}
