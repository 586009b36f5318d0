"""What the server tells Prometheus, under TensorFlow Serving's names where it has them.

Names, labels, units and bucket bounds of `:tensorflow:...` are TensorFlow Serving's (servables/tensorflow/util.cc,
batching/batching_session.cc, TensorFlow's cc/saved_model/loader.cc); what starts with `:valence:` is ours alone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest

from app.serving.drift import TEXT, Answered, DriftStatistics
from app.serving.series import Counter, Gauge, Histogram
from app.serving.status import Code

if TYPE_CHECKING:
    from app.serving.repository import ModelRepository
    from app.serving.servable import Servable

# Microseconds: 10 * 1.8^n up to 25 minutes.
_LATENCIES = tuple(10 * 1.8**n for n in range(33))
_BATCH_SIZES = tuple(2**n for n in range(14))
# What is measured in a session runs on TensorFlow Serving's first runtime.
_RUNTIME = "TF1"
# Over REST TensorFlow Serving names the verb of the URL, and none for status and metadata.
_REST_APIS = {"Predict": "predict", "Classify": "classify", "Regress": "regress"}
# Version folders whose loads are told of: a new version every minute must not be a new series for ever.
KEPT_LOADS = 64


class ServingMetrics:
    """Counters and histograms of one server; safe to call from several threads.

    With a repository to `follow`, or given here, only models that it serves get series, whatever names a URL may
    hold, and the tokens of the texts are counted by each version's own `text_statistics`.
    """

    def __init__(self, repository: ModelRepository | None = None) -> None:
        self._repository: ModelRepository | None = None
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._load_paths: deque[str] = deque()
        self._request_count = Counter(
            ":tensorflow:serving:request_count", "Requests by how they ended.", ("model_name", "status")
        )
        self._request_latency = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its answer, of the requests that succeeded.",
            _LATENCIES,
            ("model_name", "API", "entrypoint"),
        )
        self._runtime_latency = Histogram(
            ":tensorflow:serving:runtime_latency",
            "Microseconds that TensorFlow took for a request, the wait for its batch included.",
            _LATENCIES,
            ("model_name", "API", "runtime"),
        )
        self._input_size = Histogram(
            ":tensorflow:serving:batching_session:input_batch_size", "Rows of a request.", _BATCH_SIZES
        )
        self._batch_size = Histogram(
            ":tensorflow:serving:batching_session:processed_batch_size",
            "Rows of a batch with its padding; a batch is counted by the share of its rows that were asked for.",
            _BATCH_SIZES,
        )
        self._load_attempts = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count", "Attempts to load a version.", ("model_path", "status")
        )
        self._load_latency = Counter(
            ":tensorflow:cc:saved_model:load_latency",
            "Microseconds that loading a version took, all times it succeeded.",
            ("model_path",),
        )
        self._unknown_models = Counter(
            ":valence:unknown_model_count", "Requests for models that are not served, by how they ended.", ("status",)
        )
        self._in_progress = Gauge(":valence:requests_in_progress", "Requests that are being answered.")
        self._in_progress.add((), 0.0)
        self._families = (
            self._request_count,
            self._request_latency,
            self._runtime_latency,
            self._input_size,
            self._batch_size,
            self._load_attempts,
            self._load_latency,
            self._unknown_models,
            self._in_progress,
        )
        self._drift = DriftStatistics()
        self._process = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._process)
        if repository is not None:
            self.follow(repository)

    def follow(self, repository: ModelRepository) -> None:
        """Count for the models of this repository from now on; it may be made after the metrics."""
        self._repository = repository
        self._drift.lease = repository.lease

    def request(self, model: str, api: str, entrypoint: str, code: Code, seconds: float) -> None:
        """Count a request that was answered: `api` Predict, Classify, ..., `entrypoint` REST or GRPC.

        As in TensorFlow Serving a failed one has no latency.
        """
        if not self._is_known(model):
            self._unknown_models.add((code.name,))
            return
        self._request_count.add((model, code.name))
        if code is Code.OK:
            name = _REST_APIS.get(api, "") if entrypoint == "REST" else api
            self._request_latency.observe((model, name, entrypoint), seconds * 1e6)

    def runtime(self, model: str, api: str, seconds: float) -> None:
        """Count the time that a model's graph took."""
        self._runtime_latency.observe((model, api, _RUNTIME), seconds * 1e6)

    def batch(self, rows: int, batch_size: int) -> None:
        """Count a request of `rows` that was answered in a batch of `batch_size`, padding included.

        A servable tells of every run in a batch; what the statistics run for themselves is no request.
        """
        if self._drift.is_running():
            return
        self._input_size.observe((), rows)
        self._batch_size.observe((), batch_size, rows / batch_size)

    def answered(
        self, model: str, servable: Servable, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
    ) -> None:
        """Take note of what a classifier was asked and said; other models have no labels to count.

        A classifier takes `text` string[n] and gives `label` string[n] and `confidence` float32[n].
        """
        texts, labels, confidence = inputs.get(TEXT), outputs.get("label"), outputs.get("confidence")
        if texts is None or labels is None or confidence is None:
            return
        are_rows = texts.ndim == 1 and texts.shape == labels.shape == confidence.shape
        if are_rows and texts.dtype == labels.dtype == object and confidence.dtype.kind == "f":
            self._drift.answered(Answered(model, servable.version, texts, labels, confidence))

    @contextmanager
    def loading(self, path: Path) -> Iterator[None]:
        """Count an attempt to load the version folder `path`, which is what the `with` block does."""
        name, started = str(path), time.perf_counter()
        self._remember_load(name)
        try:
            yield
        except BaseException:
            self._load_attempts.add((name, "fail"))
            raise
        self._load_attempts.add((name, "success"))
        self._load_latency.add((name,), (time.perf_counter() - started) * 1e6)

    def in_progress(self, change: int) -> None:
        """Count one request more, or one less, that is being answered."""
        self._in_progress.add((), change)

    def exposition(self) -> bytes:
        """The metrics as Prometheus reads them (text format 0.0.4), and those of the process."""
        text = "".join(f"{line}\n" for line in self._lines())
        return text.encode("utf-8", "replace") + generate_latest(self._process)

    def flush(self) -> None:
        """Wait until everything handed over so far shows."""
        self._drift.flush()

    def close(self) -> None:
        """Count what waits, and end the thread of the statistics."""
        self._drift.close()

    def _remember_load(self, name: str) -> None:
        """Make room for the series of a folder, at the cost of the one that was new the longest time ago."""
        with self._lock:
            if name not in self._load_paths:
                self._load_paths.append(name)
            oldest = self._load_paths.popleft() if len(self._load_paths) > KEPT_LOADS else None
        if oldest is not None:
            self._load_attempts.forget(oldest)
            self._load_latency.forget(oldest)

    def _lines(self) -> Iterator[str]:
        for family in self._families:
            yield from family.lines()
        yield from self._drift.lines()

    def _is_known(self, model: str) -> bool:
        if self._repository is None or model in self._known:
            return True
        if model not in self._repository.names():
            return False
        self._known.add(model)
        return True
