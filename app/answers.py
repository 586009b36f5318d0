"""A classifier's answers on labelled texts, with what is known of each text: what every comparison starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from app.calibration import check_examples, softmax
from app.errors import RequestError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of one trained classifier on one split, n texts in the split's order.

    name: as tables show it ("lstm"). label_ids int64[n], positions in `label_names`. logits float64[n, c] before
    `temperature`; log-probabilities serve as well, since a constant added to a row changes nothing. num_tokens
    int64[n]: pieces of each text before truncation, `[CLS]` not counted. unknown_share float64[n]: `[UNK]` among
    them, 0 to 1. sequence_length: pieces that the model reads, `[CLS]` included. columns: further facts by name,
    object[n] of strings (the group, columns of the user's). Raises `RequestError` where lengths or labels do not fit.
    """

    name: str
    label_names: tuple[str, ...]
    texts: tuple[str, ...]
    label_ids: IntArray
    logits: FloatArray
    temperature: float
    num_tokens: IntArray
    unknown_share: FloatArray
    sequence_length: int
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_examples(self.label_ids, self.logits, "logits")
        if self.logits.shape[1] != len(self.label_names):
            raise RequestError(f"{self.name}: {self.logits.shape[1]} logits for {len(self.label_names)} label names")
        lengths = {
            "texts": len(self.texts),
            "num_tokens": len(self.num_tokens),
            "unknown_share": len(self.unknown_share),
            **{f"column {name}": len(column) for name, column in self.columns.items()},
        }
        for what, length in lengths.items():
            if length != len(self.label_ids):
                raise RequestError(f"{self.name}: {length} {what} for {len(self.label_ids)} label_ids")

    def __len__(self) -> int:
        return len(self.label_ids)

    @cached_property
    def probabilities(self) -> FloatArray:
        """Calibrated probabilities, float64[n, c]."""
        return softmax(self.logits, self.temperature)

    @property
    def predicted(self) -> IntArray:
        """The likeliest label id, int64[n]; of equals the smallest."""
        return self.logits.argmax(axis=1)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the likeliest label is the true one, bool[n]."""
        return self.predicted == self.label_ids

    @property
    def truncated(self) -> npt.NDArray[np.bool_]:
        """Whether the model read less than the whole text, bool[n]."""
        return self.num_tokens + 1 > self.sequence_length
