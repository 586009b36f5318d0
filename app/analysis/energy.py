"""Joules that the processors of this machine used, where it tells: Linux' RAPL counters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")

# Microjoules since some start, one counter a processor package.
Reading = tuple[int, ...]


@dataclass(frozen=True)
class Zone:
    """A package's counter: the file that holds it, and the microjoules after which it starts again at 0."""

    file: Path
    range_microjoules: int


class EnergyMeter:
    """Reads what all processor packages of the machine used, every other program included.

    Without a counter that this user may read, `why_not` says so and every figure is None.
    Source: the Linux kernel's documentation of the power capping framework, "intel-rapl" (AMD's too).
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        self.why_not: str | None = None
        try:
            self._zones = tuple(_packages(root))
            self._read()
        except OSError as error:
            self._zones = ()
            self.why_not = f"the energy counter {error.filename} cannot be read: {error.strerror}"
        else:
            if not self._zones:
                self.why_not = f"this machine has no energy counter below {root}"

    def read(self) -> Reading | None:
        """The counters now; None where they cannot be read."""
        try:
            return self._read() or None
        except OSError:
            return None

    def joules(self, before: Reading | None, after: Reading | None) -> float | None:
        """Joules between two readings, None if one is missing.

        A counter that is lower after than before has started again at 0, once: over more time than it takes to
        wrap around twice (half an hour and more) the figure would be too low.
        """
        if before is None or after is None:
            return None
        used = 0
        for zone, start, end in zip(self._zones, before, after, strict=True):
            used += end - start if end >= start else end - start + zone.range_microjoules
        return used / 1e6

    def _read(self) -> Reading:
        return tuple(int(zone.file.read_text()) for zone in self._zones)


def _packages(root: Path) -> Iterator[Zone]:
    """The zones of whole packages: `psys` and the zones inside a package would count the same joules again."""
    for zone in sorted(root.glob("intel-rapl:*")):
        if (zone / "name").read_text().startswith("package"):
            yield Zone(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
