import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from app import figures
from app.calibration import softmax
from app.errors import RequestError
from app.metrics import evaluate

LABELS = ("fresh", "rotten")
HARD_NAMES = [
    "情感积极",
    "_hidden",
    "$x$ and $y$",
    "🙂🫠",
    "two\nlines",
    "\x00",
    "x" * 300,
    "",
    "عربي",
    "100%",
]


def answers(classes, count=120, seed=0):
    generator = np.random.default_rng(seed)
    label_ids = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), label_ids] += 1
    return label_ids, softmax(logits)


def names(classes):
    return tuple(f"label {k}" for k in range(classes))


def legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


@pytest.mark.parametrize("label_names", [names(2), names(6), names(25), tuple(HARD_NAMES)])
def test_every_figure_is_drawn_without_a_warning(label_names, tmp_path):
    label_ids, probabilities = answers(len(label_names))
    drawn = [
        figures.confusion_matrix(evaluate(label_ids, probabilities, label_names, resamples=2)),
        figures.reliability_diagram(label_ids, probabilities, probabilities),
        figures.roc_curves(label_ids, probabilities, label_names),
        figures.precision_recall_curves(label_ids, probabilities, label_names),
    ]
    for place, figure in enumerate(drawn):
        figure.savefig(tmp_path / f"{place}.png")
        assert figure.axes[0].get_title()
        assert figure.axes[0].get_ylabel()


def test_the_confusion_matrix_shows_counts_and_colours_shares_of_the_true_label():
    label_ids = [0] * 8 + [1] * 2
    probabilities = [[0.9, 0.1]] * 6 + [[0.1, 0.9]] * 4
    axes = figures.confusion_matrix(evaluate(label_ids, probabilities, ("fresh", "rotten"), resamples=2)).axes[0]

    assert [text.get_text() for text in axes.texts] == ["6", "2", "0", "2"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["fresh", "rotten"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted label", "true label")


def test_a_label_without_test_examples_is_an_empty_row():
    evaluation = evaluate([0], [[0.8, 0.1, 0.1]], names(3), resamples=2)
    shares = figures.confusion_matrix(evaluation).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shares, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_cells_of_many_classes_are_not_numbered():
    evaluation = evaluate(*answers(figures.MOST_NUMBERED_CLASSES + 1), names(21), resamples=2)
    assert not figures.confusion_matrix(evaluation).axes[0].texts


def test_the_reliability_diagram_draws_accuracy_by_confidence_and_the_bins_counts():
    figure = figures.reliability_diagram([0, 1], [[0.9, 0.1], [0.9, 0.1]], [[0.6, 0.4], [0.6, 0.4]])
    upper, lower = figure.axes

    np.testing.assert_allclose(upper.lines[1].get_xydata(), [[0.9, 0.5]])
    np.testing.assert_allclose(upper.lines[2].get_xydata(), [[0.6, 0.5]])
    assert sum(bar.get_height() for bar in lower.patches) == 4
    assert "before temperature: calibration error 0.400" in legend(figure)
    assert "after temperature: calibration error 0.100" in legend(figure)


def test_two_classes_have_one_curve_that_of_label_1():
    label_ids, probabilities = answers(2)
    assert [text.split(":")[0] for text in legend(figures.roc_curves(label_ids, probabilities, LABELS))] == [
        "chance",
        "rotten",
    ]
    (found,) = legend(figures.precision_recall_curves(label_ids, probabilities, LABELS))
    assert found.startswith("rotten: average precision 0.")


def test_the_area_in_the_legend_is_the_reported_auroc():
    label_ids, probabilities = answers(2)
    auroc = evaluate(label_ids, probabilities, LABELS, resamples=2).metrics["auroc"].value
    assert legend(figures.roc_curves(label_ids, probabilities, LABELS))[1] == f"rotten: area {auroc:.3f}"


def test_of_many_classes_the_largest_and_the_mean_of_all_are_drawn():
    label_ids, probabilities = answers(12, count=600)
    label_ids[:200] = 7
    evaluation = evaluate(label_ids, probabilities, names(12), resamples=2)
    found = legend(figures.roc_curves(label_ids, probabilities, names(12)))

    assert len(found) == 1 + figures.MOST_CURVES + 1
    assert found[1].startswith("label 7: ")
    assert found[-1] == f"mean of all 12: area {evaluation.metrics['auroc'].value:.3f}"


def test_a_class_without_test_examples_has_no_curve():
    found = legend(figures.roc_curves([0, 1], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], names(3)))
    assert [text.split(":")[0] for text in found] == ["chance", "label 0", "label 1"]


@pytest.mark.parametrize("draw", [figures.roc_curves, figures.precision_recall_curves])
def test_a_test_split_of_one_class_gives_an_empty_figure(draw, tmp_path):
    figure = draw([0, 0], [[0.8, 0.2], [0.6, 0.4]], LABELS)
    figure.savefig(tmp_path / "empty.png")
    assert legend(figure)[-1] == "no curve: all test examples have one label"


def test_curves_of_broken_probabilities_are_refused():
    with pytest.raises(RequestError, match="sums to"):
        figures.roc_curves([0], [[0.8, 0.8]], LABELS)


def test_training_curves_mark_the_best_epoch():
    history = {"loss": [0.7, 0.5, 0.3], "validation_loss": [0.7, 0.4, 0.6], "learning_rate": [0.001] * 30}
    figure = figures.training_curves(history)
    losses, rates = figure.axes

    assert legend(figure) == ["training", "validation", "best: epoch 2, 0.400"]
    assert losses.lines[2].get_xdata()[0] == 2
    np.testing.assert_allclose(rates.lines[0].get_xdata()[[0, -1]], [0.1, 3])
    assert rates.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    ("history", "entries"),
    [
        ({"loss": [0.7]}, ["training"]),
        ({"loss": [0.7], "validation_loss": []}, ["training"]),
        ({"loss": [0.7], "validation_loss": [math.nan]}, ["training", "validation"]),
        (
            {"loss": [0.7, 0.6], "validation_loss": [math.nan, 0.5]},
            ["training", "validation", "best: epoch 2, 0.500"],
        ),
    ],
)
def test_training_curves_of_short_and_broken_runs(history, entries, tmp_path):
    figure = figures.training_curves(history)
    assert legend(figure) == entries
    figure.savefig(tmp_path / "training.png")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("positive", "positive"),
        ("two\n lines", "two lines"),
        ("", "(blank)"),
        ("costs $5", r"costs \$5"),
        ("a long beginning, end 1", "a long begin…end 1"),
        ("\U0010ffff", r"\U0010ffff"),
        ("\x00", r"\x00"),
    ],
)
def test_labels_are_written_so_that_they_can_be_drawn(label, expected):
    assert figures.shown(label) == expected


@pytest.mark.parametrize("label", HARD_NAMES)
def test_a_drawn_label_is_short(label):
    assert len(figures.shown(label).replace(r"\$", "$")) <= figures.LABEL_LENGTH


def test_neighbouring_curves_have_different_looks():
    axes = figures.roc_curves(*answers(10), names(10)).axes[0]
    looks = {(to_hex(line.get_color()), line.get_linestyle()) for line in axes.lines[1:]}
    assert len(looks) == 10
