"""The truncation ledger: what a model does not read, what that seems to cost, and what reading more would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app import wording
from app.analysis.features import length
from app.analysis.proportions import lower_than, proportion, share
from app.analysis.tails import TailSignal, Truncation, tail_signal
from app.answers import Answers, IntArray
from app.power import SIGNIFICANCE
from app.statistics import Interval, holm

# Multiples of the present sequence length that are priced, besides the length at which nothing is cut.
MULTIPLES = (0.5, 1, 1.5, 2, 4)
SHORTEST = 4


@dataclass(frozen=True)
class Cut:
    """Texts of one kind: how many, the share of them that is cut, and the share of all their pieces that is lost."""

    name: str
    rows: int
    share_cut: Interval
    pieces_lost: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "rows": self.rows,
            "share_cut": self.share_cut.to_dict(),
            "pieces_lost": self.pieces_lost,
        }


@dataclass(frozen=True)
class LengthBin:
    """Texts of like length and the model's accuracy on them."""

    name: str
    rows: int
    share_cut: float
    accuracy: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.name,
            "rows": self.rows,
            "share_cut": self.share_cut,
            "accuracy": self.accuracy.to_dict(),
        }


@dataclass(frozen=True)
class Price:
    """Another sequence length: what it would still cut, and its work as a multiple of the present one's.

    linear: pieces read, for work that grows with a text's length (LSTM, embeddings, feed-forward layers). quadratic:
    their squares, for attention. Each text is taken alone; padding to batch-mates adds to both alike.
    """

    sequence_length: int
    share_cut: float
    pieces_lost: float
    linear: float
    quadratic: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(vars(self))


@dataclass(frozen=True)
class Ledger:
    """What truncation does to one model on one split.

    accuracy_cut and accuracy_uncut have NaN where there are no such texts. p_value: Fisher's exact test, one-sided,
    that cut texts are answered no worse. tail: what the lost parts of training texts tell, or None where training
    texts were not given or too few are cut.
    """

    model: str
    sequence_length: int
    total: Cut
    by_class: tuple[Cut, ...]
    accuracy_cut: Interval
    accuracy_uncut: Interval
    p_value: float
    by_length: tuple[LengthBin, ...]
    prices: tuple[Price, ...]
    tail: TailSignal | None

    @property
    def corrected(self) -> tuple[float, float]:
        """The p-values that cut texts are answered no worse, and that the lost part adds nothing, after Holm."""
        if self.tail is None:
            return self.p_value, 1.0
        worse, adds = holm([self.p_value, self.tail.mcnemar.p_value])
        return worse, adds

    @property
    def is_worse_when_cut(self) -> bool:
        """Whether cut texts are answered worse than uncut ones, beyond chance."""
        return self.corrected[0] < SIGNIFICANCE

    @property
    def hides_signal(self) -> bool:
        """Whether the lost part tells what the kept one does not, or tells the label while cut texts go worse.

        Without training texts nothing is known of the lost part, and the answer is no.
        """
        return self.tail is not None and (self.lost_part_adds or (self.tail.predicts and self.is_worse_when_cut))

    @property
    def lost_part_adds(self) -> bool:
        """Whether a bag of words reads whole texts better than the kept parts, beyond chance."""
        return self.tail is not None and self.tail.gain.value > 0 and self.corrected[1] < SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "model": self.model,
            "sequence_length": self.sequence_length,
            "total": self.total.to_dict(),
            "by_class": [part.to_dict() for part in self.by_class],
            "accuracy_cut": self.accuracy_cut.to_dict(),
            "accuracy_uncut": self.accuracy_uncut.to_dict(),
            "p_value": self.p_value,
            "by_length": [part.to_dict() for part in self.by_length],
            "prices": [price.to_dict() for price in self.prices],
            "tail": self.tail.to_dict() if self.tail else None,
            "is_worse_when_cut": self.is_worse_when_cut,
            "lost_part_adds": self.lost_part_adds,
            "hides_signal": self.hides_signal,
            "verdict": verdict(self),
        }


def truncation_ledger(
    answers: Answers,
    *,
    truncation: Truncation = "head",
    train_texts: Sequence[str] | None = None,
    train_label_ids: npt.ArrayLike | None = None,
    train_num_tokens: npt.ArrayLike | None = None,
    sequence_lengths: Sequence[int] | None = None,
    seed: int = 0,
) -> Ledger:
    """What truncation does to these answers and, where training texts are given, what the lost parts tell.

    truncation: how the model's pipeline cuts. train_num_tokens: pieces of the training texts before truncation;
    without them they are estimated by the pieces a character of the answers' texts. sequence_lengths: those to be
    priced; by default multiples of the present one, up to the one that cuts nothing.
    """
    is_cut = answers.truncated
    hits = [int(answers.correct[mask].sum()) for mask in (is_cut, ~is_cut)]
    rows = [int(mask.sum()) for mask in (is_cut, ~is_cut)]
    tail = None
    if train_texts is not None and train_label_ids is not None:
        pieces = _estimated(train_texts, answers) if train_num_tokens is None else train_num_tokens
        tail = tail_signal(train_texts, train_label_ids, pieces, answers.sequence_length, truncation, seed)
    return Ledger(
        model=answers.name,
        sequence_length=answers.sequence_length,
        total=_cut("all", np.ones(len(answers), dtype=bool), answers),
        by_class=_by_class(answers),
        accuracy_cut=proportion(hits[0], rows[0]),
        accuracy_uncut=proportion(hits[1], rows[1]),
        p_value=lower_than(hits[0], rows[0], hits[1], rows[1]),
        by_length=_by_length(answers),
        prices=_prices(answers, sequence_lengths),
        tail=tail,
    )


def verdict(ledger: Ledger) -> str:
    """Does the cut hide signal? One or two sentences."""
    total, tail = ledger.total, ledger.tail
    if total.pieces_lost == 0:
        return (
            f"No text has more than the {ledger.sequence_length:,} pieces that {ledger.model} reads: nothing is lost."
        )
    lost = f"{total.share_cut.value:.1%} of the texts are cut and {total.pieces_lost:.1%} of all pieces lost"
    worse = f"cut texts are answered worse than uncut ones: {_against(ledger)}"
    if tail is None:
        harm = ledger.is_worse_when_cut
        known = f"{worse}. The cut may hide signal" if harm else f"no harm is shown: {_against(ledger)}"
        return f"{lost}; {known}. What the lost parts tell is not known."
    if ledger.hides_signal:
        adds = [f"read with the rest, it adds {wording.points(tail.gain)}"] if ledger.lost_part_adds else []
        reasons = [*adds, *([worse] if ledger.is_worse_when_cut else [])]
        return f"The cut hides signal: {lost}. {_tells(tail)}; {'; '.join(reasons)}."
    if tail.predicts:
        return f"{lost}. {_tells(tail)}, but what is kept tells it as well: no harm is shown."
    known = f"{worse}, perhaps because long texts are harder" if ledger.is_worse_when_cut else "no harm is shown"
    return f"{lost}. {_tells(tail)}; {known}."


def _tells(tail: TailSignal) -> str:
    return (
        f"To a bag of words, what is lost tells {'the label' if tail.predicts else 'little'} by itself: right on "
        f"{wording.interval(tail.lost)} of the cut training texts, where the commonest label is right on "
        f"{wording.decimals(tail.majority)}"
    )


def _against(ledger: Ledger) -> str:
    return (
        f"{wording.interval(ledger.accuracy_cut)} against {wording.interval(ledger.accuracy_uncut)}, "
        f"Fisher {wording.p_value(ledger.p_value)}"
    )


def _estimated(texts: Sequence[str], answers: Answers) -> IntArray:
    """Pieces of each text, int64[n], from its characters."""
    a_character = answers.num_tokens.sum() / max(1, sum(map(len, answers.texts)))
    return np.array([round(len(text) * a_character) for text in texts], dtype=np.int64)


def _cut(name: str, mask: npt.NDArray[np.bool_], answers: Answers) -> Cut:
    pieces = answers.num_tokens[mask]
    return Cut(name, int(mask.sum()), share(answers.truncated[mask]), _lost(pieces, answers.sequence_length))


def _by_class(answers: Answers) -> tuple[Cut, ...]:
    """Classes that the split has, in label order."""
    masks = [answers.label_ids == label_id for label_id in range(len(answers.label_names))]
    return tuple(_cut(name, mask, answers) for name, mask in zip(answers.label_names, masks, strict=True) if mask.any())


def _by_length(answers: Answers) -> tuple[LengthBin, ...]:
    bins = length(answers.num_tokens)
    masks = [bins.value_ids == number for number in range(len(bins.values))]
    return tuple(
        LengthBin(name, int(mask.sum()), float(answers.truncated[mask].mean()), share(answers.correct[mask]))
        for name, mask in zip(bins.values, masks, strict=True)
    )


def _prices(answers: Answers, sequence_lengths: Sequence[int] | None) -> tuple[Price, ...]:
    present, longest = answers.sequence_length, int(answers.num_tokens.max()) + 1
    if sequence_lengths is None:
        multiples = (max(SHORTEST, round(present * multiple)) for multiple in MULTIPLES)
        sequence_lengths = [present, longest, *(length for length in multiples if length < longest)]
    read_now = np.minimum(answers.num_tokens + 1, present).astype(np.float64)
    return tuple(_price(answers.num_tokens, length, read_now) for length in sorted(set(sequence_lengths)))


def _price(num_tokens: IntArray, sequence_length: int, read_now: npt.NDArray[np.float64]) -> Price:
    read = np.minimum(num_tokens + 1, sequence_length).astype(np.float64)
    return Price(
        sequence_length=int(sequence_length),
        share_cut=float((num_tokens + 1 > sequence_length).mean()),
        pieces_lost=_lost(num_tokens, sequence_length),
        linear=float(read.sum() / read_now.sum()),
        quadratic=float((read**2).sum() / (read_now**2).sum()),
    )


def _lost(num_tokens: IntArray, sequence_length: int) -> float:
    """The share of all pieces that texts of int64[n] pieces lose; `[CLS]` takes one place."""
    return float(np.maximum(0, num_tokens - (sequence_length - 1)).sum() / max(1, num_tokens.sum()))
