"""Sections about single texts: disagreements, slices, truncation, leaks, and labels that may be wrong."""

from __future__ import annotations

from collections.abc import Sequence

from app import wording
from app.analysis.label_errors import Suspects
from app.analysis.leaks import Leaks
from app.analysis.slices import Slice
from app.analysis.truncation import Ledger
from app.compared import Compared
from app.highlights import (
    disagreement_sentences,
    leak_sentences,
    slice_sentences,
    suspect_sentences,
    truncation_sentences,
)
from app.report.tables import Cell, Column, Table, cut_note, number_cell, share_cell, text_cell
from app.report.view import Part, Section
from app.statistics import Interval

MOST_DISAGREEMENTS = 500
MOST_SUSPECTS = 200
MOST_TWINS = 200
# Both texts of a pair say nearly the same: two thousand characters of each would make the page twice as large.
TWIN_CHARACTERS = 800
NOBODY = "none"


def disagreements(compared: Compared) -> Section | None:
    """Every text the models answer differently, those all were sure of first; None for a single model."""
    found = compared.findings.disagreements
    if found is None:
        return None
    said = list(disagreement_sentences(compared))
    if compared.several_seeds:
        exported = (f"{one.name} {one.seed_names[one.exported]}" for one in compared.contestants if len(one.seeds) > 1)
        said.append(f"Of several seeds the exported one is shown: {', '.join(exported)}.")
    if not found.rows:
        return Section("disagreements", "Where they disagree", tuple(said))
    columns = (
        Column("text", "text"),
        Column("label", "label", choose=True),
        *(Column(name) for name in found.models),
        Column("who is right", "label", choose=True),
        Column("row"),
    )
    rows = tuple(
        (
            text_cell(row.text),
            Cell(row.label),
            *(
                Cell(
                    f"{'✓' if answer.is_right else '✗'} {answer.label} {answer.probability:.2f}",
                    key=answer.probability,
                    class_="good" if answer.is_right else "bad",
                )
                for answer in row.answers
            ),
            Cell(", ".join(row.right) or NOBODY),
            Cell(str(row.row), key=row.row),
        )
        for row in found.rows[:MOST_DISAGREEMENTS]
    )
    note = cut_note(len(rows), len(found.rows), "disagreements", "disagreements.csv")
    caption = "Those that all models were sure of first. A model's column has its answer and how probable it thinks it."
    table = Table("disagreements-table", caption, columns, rows, note, "disagreements.csv")
    return Section("disagreements", "Where they disagree", tuple(said), (Part(tables=(table,)),))


def slices(compared: Compared) -> Section:
    """Every slice with each model's accuracy on it, and how far the worst one is below the rest."""
    found = compared.findings.slices
    if not found:
        return Section("slices", "Slices", slice_sentences(compared))
    models = [one.model for one in found[0].models]
    columns = (
        Column("slice", "text"),
        Column("texts"),
        *(Column(name) for name in models),
        Column("gap to the rest"),
        Column("corrected p"),
        *((Column("models differ", "text"),) if found[0].pairs else ()),
    )
    caption = (
        "Accuracy on each kind of text; first those that are worse than the rest by most at least. Gaps are in points."
    )
    table = Table("slices-table", caption, columns, tuple(_slice_row(one) for one in found), export="slices.csv")
    return Section("slices", "Slices", slice_sentences(compared), (Part(tables=(table,)),))


def truncation(compared: Compared) -> Section:
    """What is cut, of which class, accuracy by length, and what other sequence lengths would cut and cost."""
    alike: dict[object, list[Ledger]] = {}
    for name in compared.names:
        ledger = compared.findings.ledgers[name]
        if ledger.total.pieces_lost > 0:
            # Models that read equally much of the same pieces cut the same texts, and their prices are the same.
            cuts = (ledger.sequence_length, ledger.prices, *((one.name, one.rows) for one in ledger.by_length))
            alike.setdefault(cuts, []).append(ledger)
    parts = [_cut_part(ledgers, number) for number, ledgers in enumerate(alike.values(), 1)]
    return Section("truncation", "Truncation", truncation_sentences(compared), tuple(parts))


def leaks(compared: Compared) -> Section:
    """Near-duplicates between splits, and accuracy without them."""
    found = compared.findings.leaks
    if found is None:
        why = compared.missing.get("leaks", "the texts of the training split were not at hand")
        return Section("leaks", "Leaks between splits", (f"Not looked for: {why}.",))
    shares = Table(
        "leaked",
        "Texts with a near-duplicate in another split.",
        (Column("split", "name"), Column("also in", "label"), Column("texts"), Column("with one"), Column("share")),
        tuple(
            (
                Cell(one.split),
                Cell(one.other_split),
                Cell(f"{one.rows:,}"),
                Cell(f"{one.with_twin:,}"),
                Cell(_percent(one.share)),
            )
            for one in found.leaked
        ),
        sortable=False,
    )
    scores = Table(
        "scores-without",
        "Accuracy on the test split with and without the texts that have one.",
        (Column("model", "name"), Column("all"), Column("without them"), Column("only them")),
        tuple(
            (Cell(one.model), *(Cell(wording.interval(part)) for part in (one.every, one.without_twins, one.twins)))
            for one in found.scores
        ),
        sortable=False,
    )
    pairs = (_twins_table(found),) if found.twins else ()
    return Section("leaks", "Leaks between splits", leak_sentences(compared), (Part(tables=(shares, scores, *pairs)),))


def labels(compared: Compared) -> Section:
    """Labels that are probably wrong, the surest first, to be looked at again."""
    parts = []
    for split, found in compared.findings.suspects.items():
        if found.rows:
            parts.append(Part(f"In the {split} split", tables=(_suspects_table(split, found),)))
    how = (
        "Of test texts the models' mean probability speaks against the label; of training texts a bag of words that "
        "was trained without them. A suspect is a text to look at, not an error that is proven."
    )
    why = compared.missing.get("label errors in training")
    said = (*suspect_sentences(compared), how, *((f"Training rows were not looked at: {why}.",) if why else ()))
    return Section("labels", "Labels that may be wrong", said, tuple(parts))


def _slice_row(one: Slice) -> tuple[Cell, ...]:
    worst = max(one.models, key=lambda model: model.gap.low)
    gap = f"{worst.model} {wording.points(-worst.gap).replace(' points', '')}"
    corrected = min(model.corrected for model in one.models)
    differing = [pair for pair in one.pairs if pair.is_different]
    differ = "; ".join(f"{pair.first} − {pair.second} {wording.points(pair.difference)}" for pair in differing)
    return (
        Cell(one.name),
        number_cell(f"{one.rows:,}", one.rows),
        *(
            Cell(wording.interval(model.accuracy), key=model.accuracy.value, class_="bad" if model.is_worse else "")
            for model in one.models
        ),
        number_cell(gap, -worst.gap.value),
        number_cell(wording.p_value(corrected).removeprefix("p = ").removeprefix("p "), corrected),
        *((Cell(differ or "not shown"),) if one.pairs else ()),
    )


def _cut_part(ledgers: Sequence[Ledger], number: int) -> Part:
    """Tables of models that cut alike."""
    ledger = ledgers[0]
    names = wording.listing([one.model for one in ledgers])
    heading = f"{names}: {ledger.sequence_length:,} pieces are read"
    tables = (_by_class_table(ledger, number), _by_length_table(ledgers, number), _prices_table(ledger, number))
    return Part(heading, tables=tables)


def _by_class_table(ledger: Ledger, number: int) -> Table:
    return Table(
        f"cut-{number}",
        f"What {ledger.sequence_length:,} pieces cut, by class.",
        (Column("texts", "name"), Column("number"), Column("cut"), Column("pieces lost")),
        tuple(
            (Cell(one.name), Cell(f"{one.rows:,}"), Cell(_percent(one.share_cut)), Cell(f"{one.pieces_lost:.1%}"))
            for one in (ledger.total, *ledger.by_class)
        ),
        sortable=False,
    )


def _by_length_table(ledgers: Sequence[Ledger], number: int) -> Table:
    """Accuracy by the length of texts, then that on cut and on uncut ones."""
    first = ledgers[0]
    cut = round(first.total.share_cut.value * first.total.rows)
    bins = (
        (
            Cell(one.name),
            Cell(f"{one.rows:,}"),
            Cell(f"{one.share_cut:.1%}"),
            *(Cell(wording.interval(ledger.by_length[place].accuracy)) for ledger in ledgers),
        )
        for place, one in enumerate(first.by_length)
    )
    ends = (
        ("all that are cut", cut, "100.0%", [ledger.accuracy_cut for ledger in ledgers]),
        ("all that are not", first.total.rows - cut, "0.0%", [ledger.accuracy_uncut for ledger in ledgers]),
    )
    summed = (
        (Cell(name), Cell(f"{rows:,}"), Cell(share), *(Cell(wording.interval(one)) for one in accuracies))
        for name, rows, share, accuracies in ends
    )
    return Table(
        f"lengths-{number}",
        "Accuracy by length. Long texts may be harder for other reasons than the cut.",
        (Column("texts", "name"), Column("number"), Column("cut"), *(Column(ledger.model) for ledger in ledgers)),
        (*bins, *summed),
        sortable=False,
    )


def _prices_table(ledger: Ledger, number: int) -> Table:
    return Table(
        f"prices-{number}",
        "Other sequence lengths: what they would cut, and their work as a multiple of the present one's.",
        (
            Column("pieces read", "name"),
            Column("texts cut"),
            Column("pieces lost"),
            Column("work, linear"),
            Column("work, attention"),
        ),
        tuple(
            (
                Cell(f"{one.sequence_length:,}{' (now)' if one.sequence_length == ledger.sequence_length else ''}"),
                Cell(f"{one.share_cut:.1%}"),
                Cell(f"{one.pieces_lost:.1%}"),
                Cell(f"{one.linear:.2f}"),
                Cell(f"{one.quadratic:.2f}"),
            )
            for one in ledger.prices
        ),
        sortable=False,
    )


def _twins_table(found: Leaks) -> Table:
    rows = tuple(
        (
            text_cell(one.text, TWIN_CHARACTERS),
            Cell(one.split),
            Cell(str(one.row), key=one.row),
            text_cell(one.other_text, TWIN_CHARACTERS),
            Cell(one.other_split),
            Cell(str(one.other_row), key=one.other_row),
            share_cell(one.similarity),
        )
        for one in found.twins[:MOST_TWINS]
    )
    return Table(
        "twins",
        "Pairs to look at, the most alike first: two texts from one template may be different ones.",
        (
            Column("text", "text"),
            Column("split", "label", choose=True),
            Column("row"),
            Column("other text", "text"),
            Column("other split", "label", choose=True),
            Column("other row"),
            Column("similarity"),
        ),
        rows,
        cut_note(len(rows), len(found.twins), "pairs", "near_duplicates.csv"),
        "near_duplicates.csv",
    )


def _suspects_table(split: str, found: Suspects) -> Table:
    rows = tuple(
        (
            text_cell(one.text),
            Cell(one.label),
            Cell(one.suggested),
            share_cell(one.margin),
            Cell(str(one.row), key=one.row),
        )
        for one in found.rows[:MOST_SUSPECTS]
    )
    file = f"label_suspects_{split}.csv"
    return Table(
        f"suspects-{split}",
        "The surest first. Margin: probability of the given label less that of the likeliest other one.",
        (
            Column("text", "text"),
            Column("label", "label", choose=True),
            Column("suggested", "label", choose=True),
            Column("margin"),
            Column("row"),
        ),
        rows,
        cut_note(len(rows), len(found.rows), "suspects", file),
        file,
    )


def _percent(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
