"""The verdict in plain sentences: what a careful colleague would say of the pairs."""

from __future__ import annotations

from collections.abc import Sequence

from app import wording
from app.pairs import Pair
from app.power import Equivalence
from app.statistics import ROUNDING

# The contender that a deep model has to beat to be worth its cost.
FLOOR = "linear"


def verdict(pairs: Sequence[Pair], noun: str) -> list[str]:
    """What a careful colleague would say: the best deep model against each other one, then against the floor.

    `pairs` as in `Comparison`: the first pair's first model is the best of those that are not the floor.
    """
    best = pairs[0].first
    against_floor = [pair for pair in pairs if pair.second == FLOOR]
    sentences = [pair_sentence(pair, noun) for pair in pairs if pair.first == best and pair.second != FLOOR]
    if not sentences:
        return [pair_sentence(against_floor[0], noun), floor_sentence(against_floor)]
    return [*sentences, floor_sentence(against_floor)] if against_floor else sentences


def pair_sentence(pair: Pair, noun: str) -> str:
    """One pair's difference with its interval and p, and what that means."""
    said = _difference_sentence(pair, noun)
    return said if pair.equivalence is None else f"{said} {equivalence_sentence(pair.equivalence)}"


def p_text(pair: Pair) -> str:
    """The test's name and the p that decides: McNemar p = 0.47; t-test p = 0.012 corrected for 3 pairs"""
    name = "t-test" if pair.several_seeds else "McNemar"
    corrected = f" corrected for {pair.num_pairs} pairs" if pair.num_pairs > 1 else ""
    return f"{name} {wording.p_value(pair.adjusted_p_value)}{corrected}"


def equivalence_sentence(found: Equivalence) -> str:
    """Whether the models are shown to be closer than the margin that was named."""
    margin, p_value = wording.margin(found.margin), wording.p_value(found.p_value)
    if found.shown:
        return f"Their accuracies are within {margin} of each other (equivalence {p_value})."
    return f"That they are within {margin} of each other is not shown (equivalence {p_value})."


def _difference_sentence(pair: Pair, noun: str) -> str:
    seeds = f" {wording.over_seeds(*pair.seeds)}" if pair.several_seeds else ""
    if pair.outcome == "same":
        return f"{pair.first} and {pair.second} give every one of the {pair.count:,} {noun} the same label{seeds}."
    if pair.outcome in ("better", "worse"):
        better, worse, gain = pair.first, pair.second, pair.difference
        if pair.outcome == "worse":
            better, worse, gain = worse, better, -gain
        size = wording.points_size(gain)
        return f"{better} is better than {worse} by {size} {wording.points_range(gain)}{seeds}, {p_text(pair)}."
    found = f"{pair.first} against {pair.second}: {wording.points(pair.difference)}{seeds}, {p_text(pair)}."
    return f"{found} {_doubt(pair, noun)}"


def _doubt(pair: Pair, noun: str) -> str:
    """What to make of a difference that is not shown, and what would show it."""
    unable = "These seeds and this test set cannot" if pair.several_seeds else "This test set cannot"
    if abs(pair.difference.value) <= ROUNDING:
        return f"{unable} tell them apart: both are right equally often."
    if pair.outcome == "undecided":
        said = f"{unable} tell them apart"
    elif pair.rejects:
        said = "This is borderline: the test rejects equality, the interval includes 0"
    elif pair.several_seeds:
        below = f"with several seeds p has to be below {pair.significance:g}"
        said = f"This is borderline: the interval excludes 0, the test is not clear enough ({below})"
    else:
        said = "This is borderline: the interval excludes 0, the test does not reject equality"
    if pair.examples_needed is None:
        return f"{said}; it would take more seeds, whatever the number of {noun}, to show a difference this small."
    # On a small test set the exact test is coarse and the estimate can fall below what was tested.
    if pair.examples_needed <= pair.count:
        return f"{said}."
    needed = wording.about(pair.examples_needed)
    return f"{said}; it would take about {needed} {noun} to show a difference this small."


def floor_sentence(pairs: Sequence[Pair]) -> str:
    """Whether the deep models beat the floor, from their pairs with it; of several, by how much each."""
    if len(pairs) == 1:
        return _alone_against_floor(pairs[0])
    winners = [pair.first for pair in pairs if pair.outcome == "better"]
    if len(winners) == len(pairs):
        said = "Both beat" if len(pairs) == 2 else "All beat"
    elif winners:
        said = f"Only {wording.listing(winners)} {'beats' if len(winners) == 1 else 'beat'}"
    else:
        said = "Neither beats" if len(pairs) == 2 else "None of them beats"
    clauses = [", ".join(f"{pair.first} {wording.points(pair.difference)}" for pair in pairs)]
    for outcome, meaning in (("worse", "worse than it"), ("borderline", "borderline")):
        if names := [pair.first for pair in pairs if pair.outcome == outcome]:
            clauses.append(f"{wording.listing(names)} {'is' if len(names) == 1 else 'are'} {meaning}")
    return f"{said} the {FLOOR} floor here: {'; '.join(clauses)}."


def _alone_against_floor(pair: Pair) -> str:
    if pair.outcome == "borderline":
        return f"Whether {pair.first} beats the {FLOOR} floor stays open here."
    return f"{pair.first} {'beats' if pair.outcome == 'better' else 'does not beat'} the {FLOOR} floor here."
