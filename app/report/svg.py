"""Drawing as SVG text: shapes of a chart in the page's own colours, so that light, dark and print need no second one.

Every shape carries a class and no colour; page/report.css says what a class looks like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Points = Iterable[tuple[float, float]]

# The steps that a reader can count in.
STEPS = (1, 2, 2.5, 5, 10)


def element(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """Write one element; text and attribute values are escaped, `class_` is `class`, `_` in a name is `-`."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value)) for key, value in attributes.items()
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, Markup("").join(children), Markup(name))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values within low and high, about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next(factor for factor in STEPS if factor * size >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def widened(values: Iterable[float], *, share: float = 0.06) -> tuple[float, float]:
    """The ends of the finite values, a little further apart; 0 to 1 where there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


@dataclass(frozen=True)
class Strip:
    """A horizontal scale as wide as the page leaves it room: places are percent, so nothing is stretched.

    `reverse` puts the high values on the left.
    """

    low: float
    high: float
    reverse: bool = False

    def at(self, value: float) -> str:
        """Where a value stands: `43.2%`, cut off at the ends."""
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        # Room at both ends for half a dot.
        return f"{2 + 96 * (1 - share if self.reverse else share):.2f}%"

    def svg(self, *children: Markup, height: int) -> Markup:
        """Put shapes on the strip; a screen reader has the figures in the table beside it."""
        return element("svg", *children, class_="strip", width="100%", height=height, aria_hidden="true")


@dataclass(frozen=True)
class Plot:
    """A chart with two axes. Domains are those of the data; the size is that at which text has its natural size."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 340
    height: int = 250
    left: int = 58
    bottom: int = 40

    def across(self, value: float) -> float:
        """Where x = value stands."""
        low, high = self.x
        return self.left + (value - low) / (high - low) * (self.width - self.left - 14)

    def up(self, value: float) -> float:
        """Where y = value stands."""
        low, high = self.y
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.bottom - 12)

    def line(self, points: Points, class_: str) -> Markup:
        """A line through the points; one that is not finite interrupts it."""
        return element("path", d=self._path(points), class_=class_, fill="none")

    def area(self, points: Sequence[tuple[float, float, float]], class_: str) -> Markup:
        """The ground between the two ends of (x, low, high)."""
        if not points:
            return Markup("")
        outline = [*((x, high) for x, _, high in points), *((x, low) for x, low, _ in reversed(points))]
        return element("path", d=self._path(outline) + "Z", class_=class_)

    def dot(self, x: float, y: float, class_: str, radius: float = 3.5) -> Markup:
        """A dot."""
        return element("circle", cx=self.across(x), cy=self.up(y), r=radius, class_=class_)

    def text(self, x: float, y: float, said: str, anchor: str = "middle", class_: str = "") -> Markup:
        """Text at a place in the drawing's own units."""
        return element("text", said, x=x, y=y, text_anchor=anchor, class_=class_)

    def draw(
        self,
        *shapes: Markup,
        x_label: str,
        y_label: str,
        said: str,
        x_text: Callable[[float], str] = "{:g}".format,
        y_text: Callable[[float], str] = "{:g}".format,
    ) -> Markup:
        """The chart with its axes; `said` is what a screen reader says instead."""
        floor, right = self.height - self.bottom, self.width - 14
        grid = []
        for value in ticks(*self.y):
            place = self.up(value)
            grid.append(element("line", x1=self.left, x2=right, y1=place, y2=place, class_="grid"))
            grid.append(self.text(self.left - 6, place + 4, y_text(value), "end"))
        for value in ticks(*self.x):
            grid.append(self.text(self.across(value), floor + 16, x_text(value)))
        axes = [
            element("line", x1=self.left, x2=right, y1=floor, y2=floor, class_="axis"),
            self.text((self.left + right) / 2, self.height - 6, x_label, class_="axis-label"),
            element(
                "text",
                y_label,
                class_="axis-label",
                text_anchor="middle",
                transform=f"translate(12 {(floor + 12) / 2:.0f}) rotate(-90)",
            ),
        ]
        size = f"0 0 {self.width} {self.height}"
        return element("svg", *grid, *axes, *shapes, class_="plot", viewBox=size, role="img", aria_label=said)

    def _path(self, points: Points) -> str:
        steps, move = [], "M"
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                steps.append(f"{move}{self.across(x):.1f} {self.up(y):.1f}")
                move = "L"
            else:
                move = "M"
        return "".join(steps)


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
