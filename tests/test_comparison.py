import json
import math

import numpy as np
import pytest

from app import wording
from app.comparison import Contender, Pair, compare, floor_sentence, pair_sentence, verdict
from app.errors import RequestError
from app.metrics import evaluate
from app.statistics import Interval, McNemar

LABELS = ("fresh", "rotten")


def contender(name, right, label_ids, label_names=LABELS):
    """A model with confidence 0.8 that is right exactly where `right` says."""
    label_ids, right = np.asarray(label_ids), np.asarray(right, dtype=bool)
    predicted = np.where(right, label_ids, 1 - label_ids)
    probabilities = np.where(np.arange(2) == predicted[:, None], 0.8, 0.2)
    evaluation = evaluate(label_ids, probabilities, label_names, resamples=200)
    return Contender(name, evaluation, label_ids, probabilities, 72.4, 2.34)


def right_on(only, count=1000, common=600):
    """Right on the first `common` examples and on those from `only[0]` up to `only[1]`."""
    places = np.arange(count)
    return (places < common) | ((places >= only[0]) & (places < only[1]))


def pair(first="transformer", second="lstm", *, points=(0.8, -1.2, 2.9), p=0.47, needed=6_912, same=False):
    difference = Interval(*(value / 100 for value in points))
    return Pair(first, second, 1332, difference, McNemar(100, 89, p), same, needed)


TRUTH = np.arange(1000) % 5 < 2  # 40% rotten
TRUTH_IDS = TRUTH.astype(int)
# Alone on 600-700, on 650-745, on 600-800: pairwise 50 to 45, and far ahead.
LINEAR = contender("linear", right_on((600, 700)), TRUTH_IDS)
LSTM = contender("lstm", right_on((650, 745)), TRUTH_IDS)
TRANSFORMER = contender("transformer", right_on((600, 800)), TRUTH_IDS)


def test_the_table_is_ranked_by_accuracy_and_formatted():
    table = compare([LSTM, TRANSFORMER, LINEAR]).table()

    assert [row["model"] for row in table] == ["transformer", "linear", "lstm"]
    assert table[0] == {
        "model": "transformer",
        "accuracy": wording.interval(TRANSFORMER.evaluation.metrics["accuracy"]),
        "macro-F1": wording.decimals(TRANSFORMER.evaluation.metrics["macro_f1"].value),
        "log loss": wording.decimals(TRANSFORMER.evaluation.metrics["log_loss"].value),
        "calibration error": "0.000",
        "training": "1:12",
        "one text": "2.3 ms",
    }
    assert table[0]["accuracy"].startswith("0.800 [.7")


def test_pairs_put_the_better_model_first_and_the_floor_second():
    pairs = compare([LINEAR, LSTM, TRANSFORMER]).pairs
    assert [(found.first, found.second) for found in pairs] == [
        ("transformer", "lstm"),
        ("transformer", "linear"),
        ("lstm", "linear"),
    ]
    lstm_against_floor = pairs[2]
    assert lstm_against_floor.difference.value == pytest.approx(-0.005)
    assert (lstm_against_floor.mcnemar.b, lstm_against_floor.mcnemar.c) == (45, 50)
    assert lstm_against_floor.outcome == "undecided"
    assert lstm_against_floor.examples_needed > 1000


def test_three_models_get_a_verdict_and_a_sentence_about_the_floor():
    found = compare([LINEAR, LSTM, TRANSFORMER], noun="reviews").sentences

    assert len(found) == 2
    assert found[0].startswith("transformer is better than lstm by 10.5 points [+8.")
    assert found[0].endswith("McNemar p < 0.001.")
    assert found[1].startswith("Only transformer beats the linear floor here: transformer +10.0 points [+8.")
    assert "lstm -0.5 points [-2." in found[1]


def test_the_order_in_which_models_are_given_does_not_matter():
    forward, backward = (compare(order).to_dict() for order in ([LSTM, TRANSFORMER], [TRANSFORMER, LSTM]))
    assert forward == backward


def test_one_deep_model_against_the_floor():
    found = compare([LSTM, LINEAR], noun="reviews").sentences
    assert found[0].startswith("lstm against linear: -0.5 points [")
    assert "This test set cannot tell them apart; it would take about 30,000 reviews" in found[0]
    assert found[1] == "lstm does not beat the linear floor here."

    assert compare([TRANSFORMER, LINEAR]).sentences[1] == "transformer beats the linear floor here."


def test_the_best_of_three_deep_models_is_compared_with_both_others():
    third = contender("cnn", right_on((600, 690)), TRUTH_IDS)
    found = compare([third, LSTM, TRANSFORMER]).sentences
    assert [sentence[:33] for sentence in found] == [
        "transformer is better than lstm b",
        "transformer is better than cnn by",
    ]


def test_a_comparison_is_json():
    found = json.loads(json.dumps(compare([LINEAR, LSTM]).to_dict(), allow_nan=False))
    assert [row["name"] for row in found["rows"]] == ["linear", "lstm"]
    assert found["pairs"][0]["outcome"] == "undecided"
    assert found["pairs"][0]["mcnemar"]["b"] == 45
    assert found["rows"][0]["training_seconds"] == 72.4
    assert len(found["sentences"]) == 2


def test_a_single_model_is_held_against_the_commonest_label():
    (found,) = compare([LSTM], noun="reviews").sentences
    assert found.startswith("lstm: accuracy 0.695 [.6")
    assert "on 1,000 reviews. Always answering 'fresh', the commonest label here, gives 0.600" in found
    assert "; lstm is better than that: +9.5 points [+" in found


@pytest.mark.parametrize(
    ("right", "words"),
    [
        (~TRUTH, "gives 0.600, and that is all lstm does."),
        (np.arange(1000) < 610, "; lstm is not shown to be better than that: +1.0 points ["),
        (np.arange(1000) < 200, "; lstm is worse than that: -40.0 points ["),
    ],
)
def test_a_single_model_that_is_no_better_is_told_so(right, words):
    assert words in compare([contender("lstm", right, TRUTH_IDS)]).sentences[0]


def test_models_with_the_same_labels_are_called_the_same():
    twin = contender("twin", right_on((650, 745)), TRUTH_IDS)
    found = compare([LSTM, twin], noun="reviews")
    assert found.sentences == ("lstm and twin give every one of the 1,000 reviews the same label.",)
    assert found.pairs[0].examples_needed is None


def test_models_right_equally_often_on_other_examples():
    other = contender("other", right_on((745, 840)), TRUTH_IDS)
    (found,) = compare([LSTM, other]).sentences
    assert found.startswith("lstm against other: +0.0 points [")
    assert found.endswith("p = 1.00. This test set cannot tell them apart: both are right equally often.")


def test_an_undecided_pair_says_how_many_examples_it_would_take():
    assert pair_sentence(pair(), "reviews") == (
        "transformer against lstm: +0.8 points [-1.2, +2.9], McNemar p = 0.47. This test set cannot tell "
        "them apart; it would take about 6,900 reviews to show a difference this small."
    )


def test_a_number_of_examples_that_was_already_there_is_not_mentioned():
    assert pair_sentence(pair(needed=1332), "reviews").endswith("This test set cannot tell them apart.")


@pytest.mark.parametrize(
    ("points", "p", "words"),
    [
        (
            (2.0, 0.1, 3.9),
            0.052,
            "the interval excludes 0, the test does not reject equality; it would take about",
        ),
        ((2.0, -0.1, 4.1), 0.048, "the test rejects equality, the interval includes 0; it would take about"),
        ((-2.0, -3.9, -0.1), 0.052, "the interval excludes 0"),
    ],
)
def test_a_pair_on_which_interval_and_test_disagree_is_borderline(points, p, words):
    found = pair(points=points, p=p, needed=2_700)
    assert found.outcome == "borderline"
    assert f". This is borderline: {words}" in pair_sentence(found, "reviews")


def test_a_shown_difference_names_the_better_model_whichever_way_round():
    better = pair(points=(3.1, 1.0, 5.2), p=0.004)
    worse = pair("lstm", "linear", points=(-3.1, -5.2, -1.0), p=0.004)

    assert better.outcome == "better"
    assert worse.outcome == "worse"
    tail = "by 3.1 points [+1.0, +5.2], McNemar p = 0.004."
    assert pair_sentence(better, "reviews") == f"transformer is better than lstm {tail}"
    assert pair_sentence(worse, "reviews") == f"linear is better than lstm {tail}"


UP = {"points": (3.1, 1.0, 5.2), "p": 0.004}
DOWN = {"points": (-3.1, -5.2, -1.0), "p": 0.004}
EDGE = {"points": (2.0, 0.1, 3.9), "p": 0.052}


@pytest.mark.parametrize(
    ("outcomes", "start", "end"),
    [
        ([UP], "a beats the linear floor here.", ""),
        ([{}], "a does not beat the linear floor here.", ""),
        ([{}, {}], "Neither beats the linear floor here: a +0.8 points [-1.2, +2.9], b +0.8", "+2.9]."),
        ([UP, UP], "Both beat the linear floor here: a +3.1 points [+1.0, +5.2], b", "+5.2]."),
        ([UP, {}], "Only a beats the linear floor here: a", "+2.9]."),
        ([UP, UP, UP], "All beat the linear floor here: a", "+5.2]."),
        ([{}, {}, {}], "None of them beats the linear floor here: a", "+2.9]."),
        ([UP, UP, {}], "Only a and b beat the linear floor here: a", "+2.9]."),
        (
            [{}, DOWN],
            "Neither beats the linear floor here: a",
            "b -3.1 points [-5.2, -1.0]; b is worse than it.",
        ),
        ([EDGE], "Whether a beats the linear floor stays open here.", ""),
        ([EDGE, {}], "Neither beats the linear floor here: a +2.0 points [+0.1, +3.9]", "; a is borderline."),
        ([UP, EDGE, DOWN], "Only a beats", "; c is worse than it; b is borderline."),
        ([DOWN, DOWN], "Neither beats the linear floor here: a", "; a and b are worse than it."),
    ],
)
def test_the_sentence_about_the_floor(outcomes, start, end):
    pairs = [pair(name, "linear", **given) for name, given in zip("abc", outcomes, strict=False)]
    found = floor_sentence(pairs)
    assert found.startswith(start)
    assert found.endswith(end)


def test_a_verdict_without_a_floor_does_not_mention_one():
    assert verdict([pair()], "reviews") == [pair_sentence(pair(), "reviews")]


def test_contenders_with_other_test_examples_are_refused():
    other = contender("lstm", right_on((600, 700)), 1 - TRUTH_IDS)
    with pytest.raises(RequestError, match=r"lstm and linear were not tested on the same examples"):
        compare([LINEAR, other])


def test_contenders_with_other_numbers_of_examples_are_refused():
    with pytest.raises(RequestError, match="not tested on the same examples"):
        compare([LINEAR, contender("lstm", [True, False], [0, 1])])


def test_contenders_with_other_label_names_are_refused():
    flipped = contender("lstm", right_on((600, 700)), TRUTH_IDS, LABELS[::-1])
    with pytest.raises(RequestError, match="lstm has the labels rotten, fresh, linear has fresh, rotten"):
        compare([LINEAR, flipped])


def test_probabilities_that_do_not_fit_the_labels_are_refused():
    short = Contender("lstm", LSTM.evaluation, TRUTH_IDS, LSTM.probabilities[:5], 1, 1)
    with pytest.raises(RequestError, match="lstm: 5 rows of probabilities for 1000 label_ids"):
        compare([LINEAR, short])


def test_a_name_given_twice_is_refused():
    with pytest.raises(RequestError, match="lstm stands 2 times"):
        compare([LSTM, LINEAR, LSTM])


def test_nothing_to_compare_is_refused():
    with pytest.raises(RequestError, match="nothing to compare"):
        compare([])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (wording.interval(Interval(0.762, 0.738, 0.785)), "0.762 [.738, .785]"),
        (wording.interval(Interval(1.0, 0.9994, 1.0)), "1.000 [.999, 1.000]"),
        (wording.interval(Interval(math.nan, math.nan, math.nan)), "undefined"),
        (wording.points(Interval(0.008, -0.012, 0.029)), "+0.8 points [-1.2, +2.9]"),
        (wording.points(Interval(0.0012, -0.0003, 0.003)), "+0.12 points [-0.03, +0.30]"),
        (wording.points(Interval(0.02, 0.0003, 0.04)), "+2.00 points [+0.03, +4.00]"),
        (wording.points(Interval(-0.0001, -0.02, 0.02)), "+0.0 points [-2.0, +2.0]"),
        (wording.p_value(0.4712), "p = 0.47"),
        (wording.p_value(0.0321), "p = 0.032"),
        (wording.p_value(0.0499), "p = 0.0499"),
        (wording.p_value(0.0501), "p = 0.0501"),
        (wording.p_value(1e-9), "p < 0.001"),
        (wording.duration(8.4), "0:08"),
        (wording.duration(59.7), "1:00"),
        (wording.duration(7425), "2:03:45"),
        (wording.milliseconds(0.94), "0.9 ms"),
        (wording.milliseconds(45.4), "45 ms"),
        (wording.milliseconds(math.nan), "undefined"),
        (wording.duration(math.nan), "undefined"),
        (wording.about(6_912), "6,900"),
        (wording.about(85), "85"),
        (wording.about(1_249_999), "1,200,000"),
        (wording.listing(["a"]), "a"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_figures_are_written_as_people_read_them(written, expected):
    assert written == expected
