"""The data card: what a run is about to learn from, in figures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data.splits import Splits

SHOWN = 5  # labels that the printed card names


@dataclass(frozen=True)
class Lengths:
    """Pieces for each text of all splits together, [CLS] included, before anything is cut off."""

    median: float
    percentile_95: float
    percentile_99: float
    longest: int


@dataclass(frozen=True)
class DataCard:
    """What `describe` found; shares are between 0 and 1."""

    name: str
    origin: str
    how: str
    fingerprint: str
    rows: dict[str, dict[str, int]]  # split -> label -> rows
    groups: int | None  # different ones over all splits; None where rows have no group
    group_name: str | None
    counts: dict[str, int]  # rows read, and those dropped for each reason: see Splits
    lengths: Lengths
    sequence_length: int
    truncated_share: float  # texts longer than sequence_length
    window: int | None  # pieces of a window, where long texts are read in several
    windowed_share: float  # texts that are
    unknown_rate: float  # [UNK] among all pieces
    unknown_rate_by_split: dict[str, float]
    imbalance_ratio: float  # rows of the largest class in training over those of the smallest
    majority_share: dict[str, float]  # split -> accuracy of always answering training's largest class

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the card as plain lines, a few facts on each."""
        return [self._what(), self._splits(), self._classes(), *self._dropped(), self._lengths(), self._balance()]

    def _what(self) -> str:
        total = sum(sum(rows.values()) for rows in self.rows.values())
        films = f" of {self.groups:,} {self.group_name}s" if self.groups is not None else ""
        by_label = {label: sum(rows[label] for rows in self.rows.values()) for label in self.rows["train"]}
        largest = sorted(by_label, key=lambda label: -by_label[label])
        named = [f"{label} {by_label[label] / total:.0%}" for label in largest[:SHOWN]]
        if len(largest) > SHOWN:
            named.append(f"... and {len(largest) - SHOWN} more")
        return f"{self.name}: {total:,} texts{films}, {len(by_label)} labels ({', '.join(named)})"

    def _splits(self) -> str:
        sizes = ", ".join(f"{split} {sum(rows.values()):,}" for split, rows in self.rows.items())
        shared = self.counts.get("groups_on_two_sides", 0)
        warning = f"; groups in training and elsewhere too, as given: {shared:,}" if shared else ""
        return f"{sizes}; {self.how}{warning}"

    def _classes(self) -> str:
        """Rows by class in the order of the splits, the largest classes first."""
        train = self.rows["train"]
        largest = sorted(train, key=lambda label: -train[label])
        parts = [
            f"{label} {' / '.join(f'{rows[label]:,}' for rows in self.rows.values())}" for label in largest[:SHOWN]
        ]
        more = f", ... and {len(largest) - SHOWN} more" if len(largest) > SHOWN else ""
        return f"by class: {', '.join(parts)}{more}"

    def _dropped(self) -> list[str]:
        dropped = [
            f"{count:,} {reason.replace('_', ' ')}"
            for reason, count in self.counts.items()
            if count and reason not in ("rows_read", "groups_on_two_sides")
        ]
        return [f"dropped of {self.counts['rows_read']:,} rows: {', '.join(dropped)}"] if dropped else []

    def _lengths(self) -> str:
        several = f"{self.windowed_share:.1%} in several windows of {self.window:,}, " if self.window else ""
        return (
            f"length: median {self.lengths.median:,.0f} pieces, 95% up to {self.lengths.percentile_95:,.0f}, "
            f"99% up to {self.lengths.percentile_99:,.0f}, longest {self.lengths.longest:,}; "
            f"{several}{self.truncated_share:.1%} truncated at {self.sequence_length:,}; [UNK] {self.unknown_rate:.2%}"
        )

    def _balance(self) -> str:
        return (
            f"largest class / smallest in training: {self.imbalance_ratio:.1f}; "
            f"always answering the largest is right on {self.majority_share['test']:.1%} of test"
        )


def describe(
    splits: Splits,
    lengths: Mapping[str, np.ndarray],
    unknown: Mapping[str, int],
    sequence_length: int,
    window: int | None = None,
) -> DataCard:
    """Put the figures of the splits together.

    Args:
        splits: texts and labels.
        lengths: for each split, int[texts]: the pieces of each text with [CLS], untruncated.
        unknown: for each split, how many of those pieces are [UNK].
        sequence_length: pieces of a text that a model reads.
        window: pieces that it reads at once, where it reads a longer text in several windows.
    """
    rows = {
        split: dict(
            zip(
                splits.label_names,
                np.bincount(part.label_ids, minlength=len(splits.label_names)).tolist(),
                strict=True,
            )
        )
        for split, part in splits.items()
    }
    groups = [set(part.groups) for _, part in splits.items() if part.groups is not None]
    pieces = np.concatenate([lengths[split] for split in rows])
    median, percentile_95, percentile_99 = np.percentile(pieces, [50, 95, 99]).tolist()
    train = rows["train"]
    majority = max(train, key=lambda label: train[label])
    return DataCard(
        name=splits.name,
        origin=splits.origin,
        how=splits.how,
        fingerprint=splits.fingerprint,
        rows=rows,
        groups=len(set().union(*groups)) if groups else None,
        group_name=splits.group_name,
        counts=dict(splits.counts),
        lengths=Lengths(median, percentile_95, percentile_99, int(pieces.max())),
        sequence_length=sequence_length,
        truncated_share=float(np.mean(pieces > sequence_length)),
        window=window,
        windowed_share=float(np.mean(pieces > window)) if window else 0.0,
        unknown_rate=sum(unknown[split] for split in rows) / int(pieces.sum()),
        unknown_rate_by_split={split: unknown[split] / int(lengths[split].sum()) for split in rows},
        imbalance_ratio=max(train.values()) / min(train.values()),
        majority_share={split: counts[majority] / sum(counts.values()) for split, counts in rows.items()},
    )
