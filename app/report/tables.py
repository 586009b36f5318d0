"""Tables as the page shows them: cells with what they sort by, long texts cut, and what was left out said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

# Of a text in a cell: more is folded away, and beyond the second the page leaves it to the CSV file.
SHOWN_CHARACTERS = 280
KEPT_CHARACTERS = 2_000

Kind = Literal["text", "name", "label", "number", "drawing"]


@dataclass(frozen=True)
class Cell:
    """What a cell shows. key: what it sorts by, if that is not what is read; whole: of a text that is folded away."""

    shown: str | Markup
    key: float | None = None
    whole: str | None = None
    class_: str = ""


@dataclass(frozen=True)
class Column:
    """A heading and what stands below it; with `choose` a reader can pick rows by their value here."""

    heading: str
    kind: Kind = "number"
    choose: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report. export: name of the CSV file it can be saved as; note: what was left out of it.

    sortable: rows may be put in another order, which the order of a handful of rows is not worth.
    """

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    export: str = ""
    sortable: bool = True


def text_cell(text: str, kept: int = KEPT_CHARACTERS) -> Cell:
    """A text; what is too long for a table is folded away behind its start, what is beyond `kept` characters cut."""
    if len(text) <= SHOWN_CHARACTERS:
        return Cell(text)
    whole = text if len(text) <= kept else f"{text[:kept]} ... ({len(text):,} characters)"
    return Cell(f"{text[:SHOWN_CHARACTERS].rstrip()} ...", whole=whole)


def number_cell(shown: str, key: float) -> Cell:
    """A figure; undefined ones sort last."""
    return Cell(shown, key=key if math.isfinite(key) else None)


def share_cell(share: float) -> Cell:
    """A probability or a share, with three decimals."""
    return number_cell(f"{share:.3f}" if math.isfinite(share) else "undefined", share)


def plain_table(id_: str, caption: str, rows: Sequence[dict[str, str]], kinds: dict[str, Kind] | None = None) -> Table:
    """Rows of text by column heading, as the terminal has them, as a table; the first column names its row."""
    headings = list(rows[0]) if rows else []
    of_kind: dict[str, Kind] = {**({headings[0]: "name"} if headings else {}), **(kinds or {})}
    columns = tuple(Column(heading, of_kind.get(heading, "number")) for heading in headings)
    cells = tuple(tuple(Cell(row[heading]) for heading in headings) for row in rows)
    return Table(id_, caption, columns, cells, sortable=False)


def cut_note(shown: int, there: int, what: str, file: str) -> str:
    """What was left out of a table, and where it is; nothing where it is whole."""
    return "" if shown >= there else f"The first {shown:,} of {there:,} {what}; all of them are in {file}."
