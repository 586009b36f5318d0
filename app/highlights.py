"""What was found beside the verdict in plain sentences: the terminal prints them, the report begins its sections so."""

from __future__ import annotations

from collections.abc import Iterator

from app import wording
from app.analysis.slices import ModelOnSlice, PairOnSlice, Slice
from app.analysis.truncation import verdict
from app.compared import Compared

# Of slices that stand out, more than these are left to the table.
MOST_SLICES = 2


def highlights(compared: Compared) -> list[tuple[str, tuple[str, ...]]]:
    """A heading and a sentence or a few for each finding there is, in the order of the report."""
    found = [
        ("Seeds", seed_sentences(compared)),
        ("Disagreements", disagreement_sentences(compared)),
        ("Slices", slice_sentences(compared)),
        ("Truncation", truncation_sentences(compared)),
        ("Leaks", leak_sentences(compared)),
        ("Labels", suspect_sentences(compared)),
        ("Costs", () if compared.findings.costs is None else compared.findings.costs.sentences),
        ("Learning curve", tuple(_curve_sentences(compared))),
    ]
    return [(heading, sentences) for heading, sentences in found if sentences]


def seed_sentences(compared: Compared) -> tuple[str, ...]:
    """Whether the best seed of each model that has several is a lucky one."""
    return tuple(f"{name}: {luck.sentence}" for name, luck in compared.findings.luck.items())


def disagreement_sentences(compared: Compared) -> tuple[str, ...]:
    """On how many texts not all models say the same, and who is right on them."""
    found = compared.findings.disagreements
    if found is None:
        return ()
    if not found.rows:
        return (f"The models give every one of the {found.total:,} texts the same label.",)
    share = len(found.rows) / found.total
    said = f"They differ on {len(found.rows):,} of {found.total:,} texts ({share:.1%})"
    everybody = len(found.models)
    parts = [
        f"only {wording.listing(list(one.right))} right on {one.count:,}"
        for one in found.counts
        if 0 < len(one.right) < everybody
    ]
    nobody = next((one.count for one in found.counts if not one.right), 0)
    return (f"{said}: {', '.join(parts)}. None is right on {nobody:,} texts.",)


def slice_sentences(compared: Compared) -> tuple[str, ...]:
    """The kinds of texts that are worse than the rest or where two models differ, beyond chance; or that none is."""
    slices = compared.findings.slices
    if not slices:
        return ("The test split is too small to look at parts of it.",)
    worse = [(one, model) for one in slices for model in one.models if model.is_worse]
    different = [(one, pair) for one in slices for pair in one.pairs if pair.is_different]
    looked = f"{len(slices)} kinds of texts were looked at, each p corrected for all of them."
    if not worse and not different:
        first = slices[0]
        model = max(first.models, key=lambda one: one.gap.low)
        return (f"No kind of text is worse than the rest beyond chance. First comes {_worse(first, model)}.", looked)
    said = [f"{_worse(one, model)}." for one, model in worse[:MOST_SLICES]]
    said += [f"{_different(one, pair)}." for one, pair in different[:MOST_SLICES]]
    more = len(worse) + len(different) - len(said)
    return (*said, f"{looked} {more} more stand out." if more else looked)


def truncation_sentences(compared: Compared) -> tuple[str, ...]:
    """What each model loses by cutting texts; models that lose nothing share one sentence."""
    ledgers = compared.findings.ledgers
    whole = [name for name, ledger in ledgers.items() if ledger.total.pieces_lost == 0]
    said = [f"{name}: {verdict(ledger)}" for name, ledger in ledgers.items() if name not in whole]
    if not whole:
        return tuple(said)
    lengths = sorted({ledgers[name].sequence_length for name in whole})
    pieces = wording.listing([f"{length:,}" for length in lengths])
    reads = "reads" if len(whole) == 1 else "read"
    return (*said, f"{wording.listing(whole)} {reads} {pieces} pieces; no text is longer, so nothing is lost.")


def leak_sentences(compared: Compared) -> tuple[str, ...]:
    """The share of test texts with a near-duplicate in training, and the accuracy without them."""
    leaks = compared.findings.leaks
    if leaks is None:
        return ()
    of_test = [one for one in leaks.leaked if (one.split, one.other_split) == ("test", "train")]
    said = []
    for one in of_test:
        share = f"{one.share.value:.2%} [{one.share.low:.2%}, {one.share.high:.2%}]"
        said.append(f"{one.with_twin:,} of {one.rows:,} test texts have a near-duplicate in training: {share}.")
    if any(one.with_twin for one in leaks.leaked):
        scores = ", ".join(
            f"{one.model} {wording.decimals(one.without_twins.value)} instead of {wording.decimals(one.every.value)}"
            for one in leaks.scores
        )
        said.append(f"Accuracy without the test texts that have one in another split: {scores}.")
    return tuple(said)


def suspect_sentences(compared: Compared) -> tuple[str, ...]:
    """How many labels are suspect in each split that was looked at, and at most about how many are wrong."""
    return tuple(
        f"{split}: {len(found.rows):,} of {found.total:,} labels are suspect; at most about "
        f"{found.estimated_errors.value:,.0f} [{found.estimated_errors.low:,.0f}, {found.estimated_errors.high:,.0f}] "
        "are wrong by an estimate that counts the classifier's own confident errors too."
        for split, found in compared.findings.suspects.items()
    )


def _curve_sentences(compared: Compared) -> Iterator[str]:
    for name, curve in compared.findings.curves.items():
        first, *others = curve.sentences
        yield f"{name}: {first}"
        yield from others


def _worse(one: Slice, model: ModelOnSlice) -> str:
    return (
        f"{model.model} on {one.name} ({one.rows:,} texts): accuracy {wording.interval(model.accuracy)} "
        f"against {wording.decimals(model.rest.value)} elsewhere, corrected {wording.p_value(model.corrected)}"
    )


def _different(one: Slice, pair: PairOnSlice) -> str:
    return (
        f"{pair.first} against {pair.second} on {one.name} ({one.rows:,} texts): {wording.points(pair.difference)}, "
        f"corrected {wording.p_value(pair.corrected)}"
    )
