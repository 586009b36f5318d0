"""What the page's template is given: sections of sentences, forest plots, charts and tables, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from app.report.tables import Table

# Colours that the page has for models; the seventh has the first one's again.
NUM_COLOURS = 6


@dataclass(frozen=True)
class ForestLine:
    """One line of a forest plot: its name, the drawing, and the same in figures."""

    name: str
    drawing: Markup
    figure: str
    p: str = ""
    class_: str = ""


@dataclass(frozen=True)
class Forest:
    """Lines that share one scale. towards: what the two sides of the drawing mean; p_heading empty: no such column."""

    caption: str
    heading: str
    towards: str
    figure: str
    lines: tuple[ForestLine, ...]
    axis: Markup
    p_heading: str = ""

    @property
    def has_p(self) -> bool:
        """Whether the lines have a last column."""
        return bool(self.p_heading)


@dataclass(frozen=True)
class Chart:
    """A drawing and what stands above it."""

    caption: str
    drawing: Markup


@dataclass(frozen=True)
class LegendEntry:
    """A model and the class that colours it."""

    name: str
    class_: str


@dataclass(frozen=True)
class Part:
    """A piece of a section, whatever it holds in this order; `wide` charts get more room."""

    heading: str = ""
    sentences: tuple[str, ...] = ()
    legend: tuple[LegendEntry, ...] = ()
    forests: tuple[Forest, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A section under a heading of its own; `id` is where a link to it leads."""

    id: str
    heading: str
    sentences: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class View:
    """The whole page: what stands on its first screen, and the sections below."""

    title: str
    eyebrow: str
    headline: str
    more: tuple[str, ...]
    rests_on: str
    unfair: str
    sections: tuple[Section, ...]


def colours(names: Sequence[str]) -> dict[str, str]:
    """The class that colours each model, by the order of their names."""
    return {name: f"s{number % NUM_COLOURS}" for number, name in enumerate(names)}


def legend(classes: dict[str, str]) -> tuple[LegendEntry, ...]:
    """The models with their colours."""
    return tuple(LegendEntry(name, class_) for name, class_ in classes.items())
