"""Counters, gauges and histograms that cost a request about a microsecond, in Prometheus' text format.

The client library's own would end every counter's name on `_total` and write the bucket 10 * 1.8^19 with all its
digits: queries that were written for TensorFlow Serving would find neither. They also take some five times as long.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
Cell = TypeVar("Cell")


class _Family(ABC, Generic[Cell]):
    """Series of one name that differ in the values of their labels; safe to use from several threads."""

    kind = ""

    def __init__(self, name: str, description: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self._description = description
        self._label_names = labels
        self._lock = threading.Lock()
        self._cells: dict[Labels, Cell] = {}

    def forget(self, *first: str) -> None:
        """Drop the series whose first labels have these values."""
        with self._lock:
            for labels in [labels for labels in self._cells if labels[: len(first)] == first]:
                del self._cells[labels]

    def lines(self) -> Iterator[str]:
        """The family in Prometheus' text format, line by line."""
        yield f"# HELP {self.name} {self._description}"
        yield f"# TYPE {self.name} {self.kind}"
        with self._lock:
            cells = {labels: self._copy(cell) for labels, cell in self._cells.items()}
        for labels, cell in cells.items():
            named = sorted(zip(self._label_names, labels, strict=True))
            yield from self._samples([f'{name}="{_escaped(value)}"' for name, value in named], cell)

    def _copy(self, cell: Cell) -> Cell:
        return cell

    @abstractmethod
    def _samples(self, labels: list[str], cell: Cell) -> Iterator[str]:
        """The lines of one series."""


class Counter(_Family[float]):
    """What only grows."""

    kind = "counter"

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        """Count `amount` more; the values of the labels are in the order of their names."""
        with self._lock:
            self._cells[labels] = self._cells.get(labels, 0.0) + amount

    def _samples(self, labels: list[str], cell: float) -> Iterator[str]:
        yield _sample(self.name, labels, cell)


class Gauge(Counter):
    """What grows and shrinks; `amount` may be negative."""

    kind = "gauge"


class Histogram(_Family[list[float]]):
    """How many values lie at or below each of the bounds, which ascend; above the last there is +Inf."""

    kind = "histogram"

    def __init__(self, name: str, description: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        super().__init__(name, description, labels)
        self._bounds = bounds
        # Six digits, as C++ writes a number: 708235 and 1.27483e+06.
        self._bound_texts = [*(f"{bound:g}" for bound in bounds), "+Inf"]

    def observe(self, labels: Labels, value: float, weight: float = 1.0) -> None:
        """Count one value; one that stands for part of an event only weighs less than 1."""
        bucket = bisect_left(self._bounds, value)
        with self._lock:
            cell = self._cell(labels)
            cell[bucket] += weight
            cell[-1] += weight * value

    def observe_all(self, labels: Labels, values: Iterable[float]) -> None:
        """Count several values of one series at once."""
        found = [(bisect_left(self._bounds, value), value) for value in values]
        with self._lock:
            cell = self._cell(labels)
            for bucket, value in found:
                cell[bucket] += 1.0
                cell[-1] += value

    def _cell(self, labels: Labels) -> list[float]:
        cell = self._cells.get(labels)
        if cell is None:
            # A count for each bucket, and the sum of the values.
            cell = self._cells[labels] = [0.0] * (len(self._bounds) + 2)
        return cell

    def _copy(self, cell: list[float]) -> list[float]:
        return cell.copy()

    def _samples(self, labels: list[str], cell: list[float]) -> Iterator[str]:
        *counts, total = cell
        below = 0.0
        for text, count in zip(self._bound_texts, counts, strict=True):
            below += count
            yield _sample(f"{self.name}_bucket", [*labels, f'le="{text}"'], _whole(below))
        yield _sample(f"{self.name}_sum", labels, total)
        yield _sample(f"{self.name}_count", labels, _whole(below))


def _whole(count: float) -> float:
    """A count without what adding parts of events left behind: 4409.000000000002."""
    return round(count, 6)


def _sample(name: str, labels: list[str], value: float) -> str:
    braced = f"{{{','.join(labels)}}}" if labels else ""
    return f"{name}{braced} {floatToGoString(value)}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
