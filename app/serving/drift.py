"""What a classifier is asked and what it answers, over time: what an alarm on drift needs.

Worked out in a thread of its own: a request only hands over what it has anyway.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from app.serving.repository import ModelSpec
from app.serving.series import Counter, Histogram

if TYPE_CHECKING:
    from app.serving.servable import Servable

logger = logging.getLogger(__name__)

Lease = Callable[[ModelSpec], AbstractContextManager["Servable"]]

STATISTICS_SIGNATURE = "text_statistics"
TEXT = "text"
# Answers that wait to be looked at, and the bytes of their texts; what comes beyond is left out, and counted.
MAX_WAITING = 1024
MAX_WAITING_BYTES = 32 * 1024 * 1024
# The thread lets answers gather: one run of a graph takes 170 microseconds, whether for one short text or for many.
GATHER_SECONDS = 0.05
TOKENIZED_ROWS = 64  # texts in one run of `text_statistics`
# A core tokenises some 25 MB a second where texts are many. A busy server spends a few hundredths of one, and leaves
# the other texts out; a text costs something beyond its bytes.
TOKENIZED_BYTES_PER_SECOND = 512 * 1024
BYTES_OF_A_ROW = 128
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


@dataclass(frozen=True, slots=True)
class _Gathered:
    """The rows of several answers of one version, in the order they came."""

    texts: list[bytes] = field(default_factory=list)
    labels: list[bytes] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)

    def add(self, answer: Answered) -> None:
        self.texts.extend(answer.texts.tolist())
        self.labels.extend(answer.labels.tolist())
        self.confidence.extend(answer.confidence.tolist())


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
        self._waiting: list[Answered] = []
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._looking = threading.Lock()
        self._running_in: int | None = None
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
        self._unobserved = Counter(
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
                self._waiting.append(answer)
                self._waiting_bytes += size
        if not has_room:
            self._unobserved.add((answer.model,), len(answer.texts))
        elif not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Count all that was handed over before."""
        with self._looking:
            self._wake.clear()
            for (model, version), gathered in self._gather().items():
                self._look_at(model, version, gathered)

    def is_running(self) -> bool:
        """Whether what runs in this thread now is `text_statistics` for these figures, and no client's request."""
        return self._running_in == threading.get_ident()

    def lines(self) -> Iterator[str]:
        """All of it in Prometheus' text format."""
        for family in (*self._by_version, self._untokenized, self._unobserved):
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

    def _gather(self) -> dict[tuple[str, int], _Gathered]:
        with self._lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        gathered: dict[tuple[str, int], _Gathered] = {}
        for answer in waiting:
            gathered.setdefault((answer.model, answer.version), _Gathered()).add(answer)
        return gathered

    def _look_at(self, model: str, version: int, gathered: _Gathered) -> None:
        try:
            self._observe((model, str(version)), gathered)
        except Exception as error:  # a model of strangers; its message may quote a text, its type cannot
            logger.warning("no statistics of %s version %d: %s", model, version, type(error).__name__)
            self._unobserved.add((model,), len(gathered.texts))
        else:
            self._observe_tokens(ModelSpec(model, version), gathered.texts)

    def _observe(self, version: tuple[str, str], gathered: _Gathered) -> None:
        self._observe_labels(version, Tally(label.decode("utf-8", "replace") for label in gathered.labels))
        self._confidence.observe_all(version, gathered.confidence)
        self._text_length.observe_all(version, [len(text.decode("utf-8", "replace")) for text in gathered.texts])

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

    def _observe_tokens(self, spec: ModelSpec, texts: list[bytes]) -> None:
        """Ask the version how it reads the texts; one that was unloaded meanwhile cannot be asked any more."""
        if self.lease is None:
            return
        counted = 0
        try:
            with self.lease(spec) as servable:
                if STATISTICS_SIGNATURE not in servable.signatures:
                    return
                chosen = texts[: self._allowance.choose(texts)]
                for start in range(0, len(chosen), TOKENIZED_ROWS):
                    rows = np.array(chosen[start : start + TOKENIZED_ROWS], object)
                    self._count_tokens((spec.name, str(spec.version)), self._run(servable, rows))
                    counted += len(rows)
        except Exception as error:  # the version is gone, or a signature of that name gives something else
            logger.debug("tokens of %s version %s are not counted: %s", spec.name, spec.version, type(error).__name__)
        if counted < len(texts):
            self._untokenized.add((spec.name,), len(texts) - counted)

    def _run(self, servable: Servable, texts: np.ndarray) -> dict[str, np.ndarray]:
        self._running_in = threading.get_ident()
        try:
            return servable.run(STATISTICS_SIGNATURE, {TEXT: texts})
        finally:
            self._running_in = None

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

    def choose(self, texts: Sequence[bytes]) -> int:
        """How many of the texts, from the first on, may be paid for now; the last of them on credit."""
        now = time.monotonic()
        self._balance = min(self._rate, self._balance + (now - self._counted_at) * self._rate)
        self._counted_at = now
        for position, text in enumerate(texts):
            if self._balance <= 0:
                return position
            self._balance -= len(text) + BYTES_OF_A_ROW
        return len(texts)
