"""What a classifier is asked and what it answers, over time: what an alarm on drift needs.

Worked out in a thread of its own: a request only hands over what it has anyway.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.serving.repository import ModelSpec
from app.serving.series import Counter, Histogram
from app.serving.status import ServingError

if TYPE_CHECKING:
    from app.serving.servable import Servable

logger = logging.getLogger(__name__)

Lease = Callable[[ModelSpec], AbstractContextManager["Servable"]]

STATISTICS_SIGNATURE = "text_statistics"
TEXT = "text"
# Answers that wait to be looked at, and the bytes of their texts; what comes beyond is left out, and counted.
MAX_WAITING = 1024
MAX_WAITING_BYTES = 32 * 1024 * 1024
# The thread lets some answers gather: it then takes the interpreter from the requests less often.
GATHER_SECONDS = 0.05
# A core tokenises some 5 MB a second: a busy server has a twentieth of one looked at, a quiet one everything.
TOKENIZED_BYTES_PER_SECOND = 256 * 1024
TOKENIZED_ROWS = 32  # texts in one run of `text_statistics`
# Labels and versions have series of their own, and a server that runs for years must not collect them for ever.
MAX_LABELS = 100
OTHER_LABELS = "(other)"
KEPT_VERSIONS = 8

_VERSION = ("model_name", "version")
_LENGTHS = (0, *(2**n for n in range(18)))
_SHARES = (0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1)
_CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request to a classifier: `texts` bytes[n], `labels` bytes[n], `confidence` float[n]."""

    model: str
    version: int
    texts: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


class DriftStatistics:
    """Labels, confidence, lengths and unknown tokens of what the classifiers were asked.

    The tokens are counted by the version's own signature `text_statistics`, under a new `lease`: what the request
    leased may be unloaded by then. Where texts come faster than `tokenized_bytes_per_second`, a text is
    looked at when the texts looked at before it were paid off, which does not depend on its own length.
    """

    def __init__(
        self, lease: Lease | None = None, *, tokenized_bytes_per_second: float = TOKENIZED_BYTES_PER_SECOND
    ) -> None:
        self.lease = lease
        self._allowance = _Allowance(tokenized_bytes_per_second)
        self._waiting: deque[tuple[Answered, int]] = deque()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._looking = threading.Lock()
        self._labels_of: dict[tuple[str, str], set[str]] = {}
        self._label_count = Counter(":valence:label_count", "Answers by label.", (*_VERSION, "label"))
        self._confidence = Histogram(
            ":valence:confidence", "Probability of the label that was answered.", _CONFIDENCES, _VERSION
        )
        self._text_length = Histogram(":valence:text_length", "Characters of a text.", _LENGTHS, _VERSION)
        self._tokens = Histogram(
            ":valence:token_count", "Tokens of a text before truncation, of the texts tokenized.", _LENGTHS, _VERSION
        )
        self._unknown_share = Histogram(
            ":valence:unknown_share", "Share of [UNK] in a text's tokens, of the texts tokenized.", _SHARES, _VERSION
        )
        self._truncated = Counter(
            ":valence:truncated_count", "Texts longer than the model reads, of the texts tokenized.", _VERSION
        )
        self._untokenized = Counter(
            ":valence:untokenized_count",
            "Texts whose tokens were not counted: too many, or the version gone.",
            ("model_name",),
        )
        self._dropped = Counter(
            ":valence:unobserved_count", "Texts and answers that are in none of the statistics.", ("model_name",)
        )
        self._by_version = (
            self._label_count,
            self._confidence,
            self._text_length,
            self._tokens,
            self._unknown_share,
            self._truncated,
        )
        self._thread = threading.Thread(target=self._work, name="drift-statistics", daemon=True)
        self._thread.start()

    def answered(self, answer: Answered) -> None:
        """Hand over one answer; takes about a microsecond and never waits."""
        size = sum(map(len, answer.texts.tolist()))
        with self._lock:
            has_room = len(self._waiting) < MAX_WAITING and self._waiting_bytes + size <= MAX_WAITING_BYTES
            if has_room:
                self._waiting.append((answer, size))
                self._waiting_bytes += size
        if not has_room:
            self._dropped.add((answer.model,), len(answer.texts))
        elif not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Count all that was handed over before."""
        with self._looking:
            self._wake.clear()
            while (answer := self._next()) is not None:
                self._look_at(answer)

    def lines(self) -> Iterator[str]:
        """All of it in Prometheus' text format."""
        for family in (*self._by_version, self._untokenized, self._dropped):
            yield from family.lines()

    def close(self) -> None:
        """Count what waits, and end the thread."""
        self._ending.set()
        self._wake.set()
        self._thread.join()
        self.flush()

    def _work(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._ending.wait(GATHER_SECONDS)
            self.flush()

    def _next(self) -> Answered | None:
        with self._lock:
            if not self._waiting:
                return None
            answer, size = self._waiting.popleft()
            self._waiting_bytes -= size
            return answer

    def _look_at(self, answer: Answered) -> None:
        try:
            self._observe(answer)
        except Exception as error:  # a model of strangers; its message may quote a text, its type cannot
            logger.warning("no statistics of %s version %d: %s", answer.model, answer.version, type(error).__name__)
            self._dropped.add((answer.model,), len(answer.texts))

    def _observe(self, answer: Answered) -> None:
        texts = answer.texts.tolist()
        labels = Tally(label.decode("utf-8", "replace") for label in answer.labels.tolist())
        lengths = [len(text.decode("utf-8", "replace")) for text in texts]
        confidence = answer.confidence.tolist()
        if not len(texts) == labels.total() == len(confidence):
            raise ValueError("one label and one confidence a text")
        version = (answer.model, str(answer.version))
        self._observe_labels(version, labels)
        self._confidence.observe_all(version, confidence)
        self._text_length.observe_all(version, lengths)
        self._observe_tokens(answer, version)

    def _observe_labels(self, version: tuple[str, str], labels: Tally[str]) -> None:
        known = self._labels_of.get(version) or self._enter(version)
        for label, count in labels.items():
            if len(known) < MAX_LABELS:
                known.add(label)
            self._label_count.add((*version, label if label in known else OTHER_LABELS), count)

    def _enter(self, version: tuple[str, str]) -> set[str]:
        """Make room for a version's series, at the cost of the one that came first."""
        of_model = [entered for entered in self._labels_of if entered[0] == version[0]]
        for oldest in of_model[: max(0, len(of_model) + 1 - KEPT_VERSIONS)]:
            del self._labels_of[oldest]
            for family in self._by_version:
                family.forget(*oldest)
        return self._labels_of.setdefault(version, set())

    def _observe_tokens(self, answer: Answered, version: tuple[str, str]) -> None:
        """Ask the version how it reads the texts; one that was unloaded meanwhile cannot be asked any more."""
        if self.lease is None:
            return
        chosen = self._allowance.choose([len(text) for text in answer.texts.tolist()])
        counted = 0
        try:
            with self.lease(ModelSpec(answer.model, answer.version)) as servable:
                if STATISTICS_SIGNATURE not in servable.signatures:
                    return
                for start in range(0, chosen, TOKENIZED_ROWS):
                    texts = answer.texts[start : min(start + TOKENIZED_ROWS, chosen)]
                    self._count_tokens(version, servable.run(STATISTICS_SIGNATURE, {TEXT: texts}))
                    counted += len(texts)
        except ServingError as error:
            logger.debug("tokens of %s version %d are not counted: %s", *version, error.code.name)
        if counted < len(answer.texts):
            self._untokenized.add((answer.model,), len(answer.texts) - counted)

    def _count_tokens(self, version: tuple[str, str], found: dict[str, np.ndarray]) -> None:
        self._tokens.observe_all(version, found["num_tokens"].tolist())
        self._unknown_share.observe_all(version, found["unknown_share"].tolist())
        self._truncated.add(version, float(found["truncated"].sum()))


class _Allowance:
    """Bytes that may be spent: they come at a steady rate, at most one second's worth is kept, debts are paid off."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._balance = bytes_per_second
        self._counted_at = time.monotonic()

    def choose(self, sizes: list[int]) -> int:
        """How many of the texts, from the first on, may be paid for now; the last of them on credit."""
        now = time.monotonic()
        self._balance = min(self._rate, self._balance + (now - self._counted_at) * self._rate)
        self._counted_at = now
        for position, size in enumerate(sizes):
            if self._balance <= 0:
                return position
            self._balance -= size
        return len(sizes)
