import dataclasses
import json
import math

import numpy as np
import pytest

from app import comparison, wording
from app.comparison import Contender, compare, permutation_p_values
from app.errors import RequestError
from app.metrics import METRICS, evaluate_seeds
from app.pairs import Pair, accuracy_side, make_pair
from app.power import Equivalence
from app.statistics import Interval, McNemar, mcnemar_exact
from app.verdict import floor_sentence, pair_sentence, verdict

LABELS = ("fresh", "rotten")


def contender(name, right, label_ids, label_names=LABELS):
    """A model with confidence 0.8 that is right exactly where `right` says: bool[n], or bool[seeds, n]."""
    label_ids, right = np.asarray(label_ids), np.atleast_2d(np.asarray(right, dtype=bool))
    predicted = np.where(right, label_ids, 1 - label_ids)
    probabilities = np.where(np.arange(2) == predicted[:, :, None], 0.8, 0.2)
    evaluation = evaluate_seeds(label_ids, probabilities, label_names, resamples=200)
    return Contender(name, label_ids, probabilities, evaluation, 72.4, 2.34)


def right_on(only, count=1000, common=600):
    """Right on the first `common` examples and on those from `only[0]` up to `only[1]`."""
    places = np.arange(count)
    return (places < common) | ((places >= only[0]) & (places < only[1]))


def pair(first="transformer", second="lstm", *, points=(0.8, -1.2, 2.9), p=0.47, needed=6_912, same=False, **others):
    difference = Interval(*(value / 100 for value in points))
    return Pair(first, second, 1332, difference, p, p, same, needed, McNemar(100, 89, p), **others)


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
    assert found[0].endswith("McNemar p < 0.001 corrected for 3 pairs.")
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
    short = Contender("lstm", TRUTH_IDS, LSTM.probabilities[:, :5], LSTM.evaluation, 1, 1)
    with pytest.raises(RequestError, match="lstm: 5 rows of probabilities for 1000 label_ids"):
        compare([LINEAR, short])


def test_probabilities_without_an_axis_of_seeds_are_refused():
    flat = Contender("lstm", TRUTH_IDS, LSTM.probabilities[0], LSTM.evaluation, 1, 1)
    with pytest.raises(RequestError, match=r"lstm: probabilities \(1000, 2\) are not \[seeds, examples, classes\]"):
        compare([LINEAR, flat])


@pytest.mark.parametrize("margin", [0, 2, -0.02, math.nan])
def test_a_margin_that_is_no_fraction_is_refused(margin):
    with pytest.raises(RequestError, match=r"margin .* is not between 0 and 1; 0.02 is two points"):
        compare([LINEAR, LSTM], margin=margin)


def test_a_name_given_twice_is_refused():
    with pytest.raises(RequestError, match="lstm stands 2 times"):
        compare([LSTM, LINEAR, LSTM])


def test_nothing_to_compare_is_refused():
    with pytest.raises(RequestError, match="nothing to compare"):
        compare([])


def test_p_values_are_adjusted_for_the_number_of_pairs_and_decide_corrected():
    # Against lstm, other gains 30 and loses 14: p = 0.023 alone, too much for the second of three pairs.
    other = contender("other", right_on((664, 775)), TRUTH_IDS)
    alone, among_three = compare([LSTM, other]).pairs[0], compare([LSTM, other, LINEAR]).pairs[0]

    assert (alone.first, alone.second) == (among_three.first, among_three.second) == ("other", "lstm")
    assert alone.p_value == alone.adjusted_p_value == among_three.p_value
    assert alone.outcome == "better"
    assert among_three.adjusted_p_value > 0.05
    assert among_three.outcome == "borderline"
    assert among_three.smallest_difference > alone.smallest_difference
    assert among_three.examples_needed > alone.examples_needed


def test_a_named_margin_is_tested_and_said():
    nearly = right_on((650, 745))
    nearly[:3] = False
    close = compare([LSTM, contender("nearly", nearly, TRUTH_IDS)], margin=0.02)
    far = compare([LSTM, TRANSFORMER], margin=0.02)

    assert close.pairs[0].equivalence.shown
    assert close.sentences[0].endswith("Their accuracies are within 2 points of each other (equivalence p < 0.001).")
    assert not far.pairs[0].equivalence.shown
    assert far.sentences[0].endswith("That they are within 2 points of each other is not shown (equivalence p = 1.00).")
    assert json.dumps(close.to_dict(), allow_nan=False)
    assert compare([LSTM, TRANSFORMER]).pairs[0].equivalence is None


def test_equivalence_of_three_models_is_corrected_too():
    alone = compare([LSTM, LINEAR], margin=0.03).pairs[0].equivalence
    among_three = compare([LSTM, LINEAR, TRANSFORMER], margin=0.03).pairs[2].equivalence
    assert among_three.p_value == pytest.approx(3 * alone.p_value)


def test_every_metric_has_a_difference_around_that_of_the_two_evaluations():
    (found,) = compare([TRANSFORMER, LSTM]).pairs
    assert set(found.metrics) == set(METRICS)
    assert found.metrics["accuracy"] == found.difference
    for name, interval in found.metrics.items():
        of_each = [model.evaluation.metrics[name].value for model in (TRANSFORMER, LSTM)]
        assert interval.value == pytest.approx(of_each[0] - of_each[1])
        assert interval.low <= interval.value <= interval.high


def test_metrics_that_mcnemar_says_nothing_about_are_permuted():
    surer = dataclasses.replace(LSTM, name="surer", probabilities=np.where(LSTM.probabilities > 0.5, 0.95, 0.05))
    (found,) = compare([surer, LSTM]).pairs
    assert found.p_value == found.permutation_p_values["macro_f1"] == 1
    assert found.permutation_p_values["expected_calibration_error"] == pytest.approx(1 / 2001)
    assert found.to_dict()["permutation_p_values"] == dict(found.permutation_p_values)
    (other,) = compare([LSTM, LINEAR]).pairs
    assert other.permutation_p_values["log_loss"] == pytest.approx(other.p_value, abs=0.05)


def test_permutations_are_fewer_for_many_examples_and_none_for_several_seeds(monkeypatch):
    monkeypatch.setattr(comparison, "SWAPPED_ANSWERS", 150 * len(TRUTH))
    far = permutation_p_values(TRANSFORMER, LINEAR)
    assert far["log_loss"] == pytest.approx(1 / 151)
    monkeypatch.setattr(comparison, "SWAPPED_ANSWERS", 99 * len(TRUTH))
    assert permutation_p_values(TRANSFORMER, LINEAR) == {}
    assert permutation_p_values(runs("a", 2, 0.7, 1), runs("b", 1, 0.7, 2)) == {}


def test_a_pair_known_by_its_labels_alone_is_the_same_pair():
    (of_probabilities,) = compare([TRANSFORMER, LSTM], margin=0.05).pairs
    sides = [accuracy_side(model.name, TRUTH_IDS, model.predicted) for model in (TRANSFORMER, LSTM)]
    of_labels = make_pair(*sides, margin=0.05)

    of_metrics = {"metric_differences": {}, "permutation_p_values": {}}
    assert of_labels.to_dict() | of_metrics == of_probabilities.to_dict() | of_metrics
    assert of_labels.mcnemar == mcnemar_exact(TRANSFORMER.predicted[0] == TRUTH_IDS, LSTM.predicted[0] == TRUTH_IDS)


TEXTS = 400


def right_by_seed(seeds, level, number):
    """Seeds of one way of training: texts are hard or easy for all of them, each seed errs on some by chance."""
    ease = np.random.default_rng(0).normal(size=TEXTS)
    chance = np.random.default_rng([1, number])
    return ease + 0.4 * chance.normal(size=(seeds, TEXTS)) + 0.03 * chance.normal(size=(seeds, 1)) > -level


def runs(name, seeds, level, number=0):
    return contender(name, right_by_seed(seeds, level, number), np.arange(TEXTS) % 2)


def test_seeds_of_one_configuration_are_never_declared_different():
    label_ids = np.zeros(TEXTS, dtype=int)
    for repetition in range(20):
        wrong = [(~right_by_seed(5, 0.7, 2 * repetition + place)).astype(int) for place in (0, 1)]
        found = make_pair(*[accuracy_side(f"model {place}", label_ids, wrong[place]) for place in (0, 1)])
        assert found.outcome in ("undecided", "borderline")


def test_a_clear_difference_over_several_seeds_is_found_and_said():
    found = compare([runs("a", 5, 1.2, 1), runs("b", 5, 0.5, 2)], noun="reviews", margin=0.01)
    (sentence,) = found.sentences

    assert found.pairs[0].outcome == "better"
    assert found.pairs[0].mcnemar is None
    assert sentence.startswith("a is better than b by 21.6 points [+1")
    assert "] over 5 seeds each, t-test p < 0.001. That they are within 1 point" in sentence
    assert [row["seeds"] for row in found.table()] == ["5", "5"]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["pairs"][0]["seeds"] == [5, 5]


def test_seeds_that_are_not_told_apart():
    found = compare([runs("a", 4, 0.72, 1), runs("b", 3, 0.7, 2)], noun="reviews")
    assert found.pairs[0].outcome == "undecided"
    assert " over 4 and 3 seeds, t-test p = " in found.sentences[0] or " over 3 and 4 seeds" in found.sentences[0]
    assert "These seeds and this test set cannot tell them apart" in found.sentences[0]


def test_a_model_with_one_seed_can_be_held_against_one_with_several():
    found = compare([runs("a", 5, 0.7, 1), runs("b", 1, 0.7, 2)]).pairs[0]
    several = compare([runs("a", 5, 0.7, 1), runs("b", 5, 0.7, 2)]).pairs[0]
    assert sorted(found.seeds) == [1, 5]
    assert found.difference.high - found.difference.low > several.difference.high - several.difference.low


def test_a_single_model_of_several_seeds_is_held_against_the_commonest_label():
    (found,) = compare([runs("a", 3, 0.7)], noun="reviews").sentences
    assert " on 400 reviews over 3 seeds. Always answering 'fresh'" in found
    assert "; a is better than that: +2" in found
    assert found.endswith(", t-test p < 0.001.")


def test_seeds_that_all_give_the_same_labels_are_the_same():
    right = np.tile(right_on((650, 745)), (3, 1))
    found = compare([contender("a", right, TRUTH_IDS), contender("b", right, TRUTH_IDS)])
    assert found.sentences == ("a and b give every one of the 1,000 examples the same label over 3 seeds each.",)


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (
            {"points": (2.0, 0.1, 3.9), "p": 0.02},
            "(with several seeds p has to be below 0.01); it would take about 6,900 x",
        ),
        ({"points": (2.0, -0.1, 4.1), "p": 0.009}, "the test rejects equality, the interval includes 0; it would take"),
        ({"needed": None}, "it would take more seeds, whatever the number of x, to show a difference this small."),
        ({"points": (0.0, -1.0, 1.0), "needed": None}, "tell them apart: both are right equally often."),
    ],
)
def test_what_is_said_of_several_seeds_in_doubt(given, end):
    assert end in pair_sentence(pair(seeds=(5, 5), **given), "x")


def test_equivalence_follows_the_difference():
    found = pair_sentence(pair(points=(3.1, 1.0, 5.2), p=0.004, equivalence=Equivalence(0.06, 0.012)), "reviews")
    assert found == (
        "transformer is better than lstm by 3.1 points [+1.0, +5.2], McNemar p = 0.004. "
        "Their accuracies are within 6 points of each other (equivalence p = 0.012)."
    )


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
        (wording.size_in_points(-0.0123), "1.2 points"),
        (wording.margin(0.02), "2 points"),
        (wording.margin(0.01), "1 point"),
        (wording.margin(0.005), "0.5 points"),
        (wording.over_seeds(5, 5), "over 5 seeds each"),
        (wording.over_seeds(5, 1), "over 5 and 1 seeds"),
        (wording.about(6_912), "6,900"),
        (wording.about(85), "85"),
        (wording.about(1_249_999), "1,200,000"),
        (wording.listing(["a"]), "a"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_figures_are_written_as_people_read_them(written, expected):
    assert written == expected
