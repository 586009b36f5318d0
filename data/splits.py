"""Three splits that share no text and, where there are groups, no group."""

import hashlib
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from data.errors import DataError
from data.sources import DataConfig, Progress, RawRows, load_rows
from data.sources.rows import slice_key

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """The examples of one split, in the order in which the source has them."""

    texts: tuple[str, ...]
    label_ids: np.ndarray  # int32[n], positions in label_names
    groups: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the slice columns; null is ""

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Splits:
    """All that a run learns from and is measured on."""

    name: str
    origin: str
    label_names: tuple[str, ...]  # the order of every probability: see `order_labels`
    train: Split
    validation: Split
    test: Split
    counts: dict[str, int]  # rows_read, and rows dropped for each reason; groups_on_two_sides as given
    how: str  # "as given", "seeded, stratified", "split by film", ...
    fingerprint: str  # sha256 hex of label names, texts, labels and membership, in order
    group_name: str | None = None  # what a group is: "film", or the name of the column

    def items(self) -> Iterator[tuple[str, Split]]:
        """Go over name and split: train, validation, test."""
        for name in SPLITS:
            yield name, getattr(self, name)

    @cached_property
    def rows_fingerprint(self) -> str:
        """The sha256 (hex) of the texts with their labels, whatever their split and their order."""
        digests = sorted(
            hashlib.sha256(f"{len(text)} {text} {self.label_names[label_id]}".encode()).digest()
            for _, part in self.items()
            for text, label_id in zip(part.texts, part.label_ids, strict=True)
        )
        return hashlib.sha256(b"".join(digests)).hexdigest()


def load_splits(config: DataConfig, progress: Progress | None = None) -> Splits:
    """Read the source and split it: see `load_rows` and `make_splits`."""
    return make_splits(load_rows(config, progress), config)


def make_splits(rows: RawRows, config: DataConfig) -> Splits:
    """Drop copies and contradictions, then cut off the splits that the source does not give.

    A split that is missing is cut off the training rows: seeded, stratified by label; by group where the
    rows have groups, so that none stands on two sides. Every split keeps the order of the rows; the same
    rows in another order are split otherwise.

    Raises:
        DataError: fewer than two classes, a class or its groups too few to split, no training rows, or a
            label in validation or test that training never sees.
    """
    label_names = order_labels(rows.frame["label"].unique())
    if len(label_names) < 2:
        raise DataError(f"{rows.origin} has a single label, {label_names[0]!r}. At least two are needed.")
    given = set(rows.frame["split"].dropna()) or {"train"}
    if "train" not in given:
        raise DataError(f"{rows.origin} has no training rows, only {' and '.join(sorted(given))}.")
    missing = [split for split in ("test", "validation") if split not in given]
    frame = rows.frame.assign(split=rows.frame["split"].fillna("train"))
    _check_labels_are_trained(frame, label_names, rows.origin)
    frame, dropped = drop_copies(frame)
    frame = _cut_off(frame, rows, config, missing)
    _check_labels_are_trained(frame, label_names, rows.origin)
    _check_no_split_is_empty(frame, rows.origin)
    counts = {"rows_read": len(rows.frame) + rows.blank, "blank": rows.blank, **dropped}
    if rows.group_name is not None:
        counts["groups_on_two_sides"] = _shared_groups(frame)
    parts = {split: _split_of(frame[frame["split"] == split], label_names, rows) for split in SPLITS}
    return Splits(
        name=rows.name,
        origin=rows.origin,
        label_names=label_names,
        **parts,
        counts=counts,
        how=_describe_how(missing, rows.group_name),
        fingerprint=fingerprint(label_names, parts),
        group_name=rows.group_name,
    )


def order_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Order label names: by number when all are integers, by code point otherwise.

    >>> order_labels(["10", "9", "-1"])
    ('-1', '9', '10')
    """
    names = sorted(set(labels))
    if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in names):
        names.sort(key=int)
    return tuple(names)


def text_key(text: str) -> str:
    """Return what two texts share that count as equal: case, compatibility forms and white space are gone."""
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())


def drop_copies(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Leave each text (see `text_key`) in one split, and in training once, with one label.

    Test and validation rows that the source gives as such are kept whole: it is the copy in training (or
    in validation, of a test row) that goes, whatever its label. Among training rows the first of equal
    rows is kept, and of rows that contradict each other none.

    Returns:
        The rows that are left, and how many went for which reason.
    """
    keys = frame["text"].map(text_key)
    split = frame["split"]
    gone = pd.Series(False, index=frame.index)
    counts: dict[str, int] = {}
    for loser, winner in (("validation", "test"), ("train", "test"), ("train", "validation")):
        copies = (split == loser) & keys.isin(keys[split == winner]) & ~gone
        counts[f"{loser}_rows_also_in_{winner}"] = int(copies.sum())
        gone |= copies
    train = frame["label"][(split == "train") & ~gone]
    train_keys = keys[(split == "train") & ~gone]
    contradicting = train.groupby(train_keys.to_numpy()).transform("nunique") > 1
    repeated = train_keys.duplicated() & ~contradicting
    counts |= {"duplicates": int(repeated.sum()), "contradictions": int(contradicting.sum())}
    gone[(split == "train") & ~gone] = (contradicting | repeated).to_numpy()
    return frame[~gone], counts


def fingerprint(label_names: tuple[str, ...], parts: Mapping[str, Split]) -> str:
    """Return the sha256 of label names, membership, texts and labels, in order; the same in any process."""
    digest = hashlib.sha256()

    def add(content: bytes) -> None:
        digest.update(len(content).to_bytes(8, "little"))  # so that ["ab", "c"] is not ["a", "bc"]
        digest.update(content)

    add(len(label_names).to_bytes(8, "little"))
    for name in label_names:
        add(name.encode())
    for split, part in parts.items():
        add(split.encode())
        add(part.label_ids.astype("<i4").tobytes())
        for text in part.texts:
            add(text.encode())
    return digest.hexdigest()


def _check_labels_are_trained(frame: pd.DataFrame, label_names: tuple[str, ...], origin: str) -> None:
    trained = set(frame["label"][frame["split"] == "train"])
    for place, label, split in zip(frame.index, frame["label"], frame["split"], strict=True):
        if label not in trained:
            known = [name for name in label_names if name in trained]
            listed = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
            raise DataError(
                f"{place}: label {label!r} is in the {split} split, but no row left in training has it. "
                f"Training has: {listed or 'no row'}."
            )
    for label in label_names:
        if label not in trained:
            raise DataError(f"{origin}: no text with label {label!r} is left, all of them have another label too.")


def _check_no_split_is_empty(frame: pd.DataFrame, origin: str) -> None:
    for split in SPLITS:
        if not (frame["split"] == split).any():
            raise DataError(
                f"{origin}: no row is left for the {split} split. "
                "Its rows are copies of rows elsewhere, or the groups are too few."
            )


def _shared_groups(frame: pd.DataFrame) -> int:
    """Count the groups that stand in training and elsewhere too: splits that are given may have such."""
    by_split = {split: set(frame["group"][frame["split"] == split]) for split in SPLITS}
    return len(by_split["train"] & (by_split["validation"] | by_split["test"]))


def _cut_off(frame: pd.DataFrame, rows: RawRows, config: DataConfig, missing: Sequence[str]) -> pd.DataFrame:
    """Turn training rows into the splits that are missing, each a fraction of the rows that are there now."""
    membership = frame["split"].to_numpy(dtype=object, copy=True)
    left = 1.0
    for done, split in enumerate(missing):
        fraction = getattr(config, f"{split}_fraction")
        in_pool = np.flatnonzero(membership == "train")
        pool = frame.iloc[in_pool]
        sides = len(missing) - done + 1  # this split, those still to come, and training
        _check_can_be_cut(pool, rows, sides)
        if rows.group_name is None:
            chosen = _choose_rows(pool, fraction / left, sides - 1, config.split_seed)
        else:
            chosen = _choose_groups(pool, fraction / left, config.split_seed)
        membership[in_pool[chosen]] = split
        left -= fraction
    return frame.assign(split=membership)


def _check_can_be_cut(pool: pd.DataFrame, rows: RawRows, sides: int) -> None:
    """Every class needs a row, or a group, for each side."""
    for label, of_label in pool.groupby("label"):
        if len(of_label) < sides:
            raise DataError(
                f"{rows.origin}: label {label!r} has too few different texts to be split: {len(of_label)}, "
                f"and it needs {sides}. Add texts, or leave the label out."
            )
        groups = of_label["group"].nunique()
        if rows.group_name is not None and groups < sides:
            raise DataError(
                f"{rows.origin}: label {label!r} stands in too few groups by {rows.group_name} to be split: "
                f"{groups}, and it needs {sides}. Add groups, or split without --group-column."
            )


def _choose_rows(pool: pd.DataFrame, share: float, keep: int, seed: int) -> np.ndarray:
    """Choose that share of each class at random, at least one row, leaving at least `keep`: int[chosen].

    Not scikit-learn's train_test_split: where classes are rare it leaves some out of the smaller side.
    """
    generator = np.random.default_rng(seed)
    labels = pool["label"].to_numpy()
    chosen = []
    for label in sorted(set(labels)):
        of_label = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(share * len(of_label))), len(of_label) - keep)
        chosen.append(of_label[:count])
    return np.concatenate(chosen)


def _choose_groups(pool: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Choose whole groups that hold about that share of each class: int[chosen]."""
    labels, groups = pool["label"].to_numpy(), pool["group"].to_numpy()
    # Folds of equal size, enough of them that some make up the share: 3 of 20 for 0.15.
    exact = Fraction(share).limit_denominator(max(20, round(1 / share)))
    folds = min(exact.denominator, pool["group"].nunique(), pool["label"].value_counts().max())
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer rows than there are folds is still spread over as many folds as it has rows.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        parts = [part for _, part in splitter.split(np.zeros(len(labels)), labels, groups) if len(part)]
    count = min(max(1, round(share * folds)), len(parts) - 1)
    return np.concatenate(parts[: max(1, count)])


def _split_of(frame: pd.DataFrame, label_names: tuple[str, ...], rows: RawRows) -> Split:
    ids = {name: i for i, name in enumerate(label_names)}
    return Split(
        texts=tuple(frame["text"]),
        label_ids=frame["label"].map(ids).to_numpy(dtype=np.int32),
        groups=tuple(frame["group"]) if rows.group_name is not None else None,
        columns={name: tuple(frame[slice_key(name)]) for name in rows.slice_columns},
    )


def _describe_how(missing: Sequence[str], group_name: str | None) -> str:
    if not missing:
        return "as given"
    cut = "seeded, stratified" if group_name is None else f"split by {group_name}"
    return cut if len(missing) == 2 else f"{missing[0]} {cut}, the rest as given"
