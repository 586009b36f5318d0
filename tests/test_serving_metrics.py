"""What the server tells Prometheus: names, labels and units, what it counts of texts, and that it stays small."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from app.serving.drift import (
    KEPT_VERSIONS,
    MAX_LABELS,
    MAX_WAITING,
    MAX_WAITING_BYTES,
    OTHER_LABELS,
    Answered,
    DriftStatistics,
)
from app.serving.metrics import KEPT_LOADS, ServingMetrics
from app.serving.model_config import ModelSettings
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.series import Counter, Histogram
from app.serving.servable import Servable
from app.serving.status import Code
from app.serving.text_protos import BatchingParameters

PATIENCE = 60  # seconds; far more than any of it takes
REQUESTS = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"


class Classifier(tf.Module):
    """Answers positive where a text has a `+`; its tokens are the words, those with a capital are unknown."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        is_positive = tf.strings.regex_full_match(text, r".*\+.*")
        label = tf.where(is_positive, "positive", "negative")
        return {"label": label, "confidence": tf.where(is_positive, 0.9, 0.6)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def text_statistics(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.strings.split(text)
        count = tf.cast(words.row_lengths(), tf.int32)
        capital = tf.strings.regex_full_match(words.values, "[A-Z].*")
        unknown = tf.reduce_sum(words.with_values(tf.cast(capital, tf.float32)), axis=1)
        share = tf.math.divide_no_nan(unknown, tf.cast(count, tf.float32))
        return {"num_tokens": count, "unknown_share": share, "truncated": count > 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base, model = tmp_path_factory.mktemp("models") / "reviews", Classifier()
    signatures = {"serving_default": model.classify, "text_statistics": model.text_statistics}
    tf.saved_model.save(model, str(base / "1"), signatures=signatures)
    return base


@pytest.fixture
def repository(models: Path) -> Iterator[ModelRepository]:
    repository = ModelRepository([ModelSettings("reviews", models)], Servable, poll_seconds=0)
    repository.start()
    yield repository
    repository.close()


@pytest.fixture
def metrics() -> Iterator[ServingMetrics]:
    metrics = ServingMetrics()
    yield metrics
    metrics.close()


def samples(told: ServingMetrics | DriftStatistics, name: str) -> list[Sample]:
    """The samples of one name, as Prometheus' own parser reads them."""
    if isinstance(told, ServingMetrics):
        text = told.exposition().decode()
    else:
        text = "".join(f"{line}\n" for line in told.lines())
    # The parser gives counters the suffix that OpenMetrics wants, which is not in the text.
    return [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.removesuffix("_total") == name
    ]


def values(told: ServingMetrics | DriftStatistics, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Values of one name by the values of its labels, in the order they are asked for."""
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in samples(told, name)}


def total(told: ServingMetrics | DriftStatistics, name: str) -> float:
    return sum(sample.value for sample in samples(told, name))


def strings(*texts: str) -> np.ndarray:
    return np.array([text.encode() for text in texts], object)


def answer(*texts: str, model: str = "reviews", version: int = 1) -> Answered:
    count = len(texts)
    return Answered(model, version, strings(*texts), strings(*["positive"] * count), np.full(count, 0.75, np.float32))


def ask(metrics: ServingMetrics, servable: Servable, *texts: str) -> None:
    """One request, as the server makes it."""
    inputs = {"text": strings(*texts)}
    metrics.answered("reviews", servable, inputs, servable.run("serving_default", inputs))


# --- requests ---


def test_requests_are_counted_by_model_and_status(metrics):
    for code in (Code.OK, Code.OK, Code.INVALID_ARGUMENT, Code.UNAVAILABLE):
        metrics.request("reviews", "Predict", "REST", code, 0.001)
    assert values(metrics, REQUESTS, "model_name", "status") == {
        ("reviews", "OK"): 2,
        ("reviews", "INVALID_ARGUMENT"): 1,
        ("reviews", "UNAVAILABLE"): 1,
    }


def test_counters_have_no_suffix_and_no_creation_time_as_in_tensorflow_serving(metrics):
    metrics.request("reviews", "Predict", "REST", Code.OK, 0.001)
    lines = metrics.exposition().decode().splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    assert ':tensorflow:serving:request_count{model_name="reviews",status="OK"} 1.0' in lines
    assert not [line for line in lines if "_created" in line]


@pytest.mark.parametrize(
    ("api", "entrypoint", "told"),
    [
        ("Predict", "REST", "predict"),
        ("Classify", "REST", "classify"),
        ("Regress", "REST", "regress"),
        ("GetModelStatus", "REST", ""),
        ("GetModelMetadata", "REST", ""),
        ("Predict", "GRPC", "Predict"),
        ("MultiInference", "GRPC", "MultiInference"),
    ],
)
def test_latency_names_the_api_as_tensorflow_serving_does_for_each_entrypoint(metrics, api, entrypoint, told):
    metrics.request("reviews", api, entrypoint, Code.OK, 0.0025)
    metrics.request("reviews", api, entrypoint, Code.OK, 0.0025)
    labels = ("model_name", "API", "entrypoint")
    assert values(metrics, f"{LATENCY}_count", *labels) == {("reviews", told, entrypoint): 2}
    assert values(metrics, f"{LATENCY}_sum", *labels) == {("reviews", told, entrypoint): pytest.approx(5000)}


def test_a_request_that_failed_has_no_latency(metrics):
    metrics.request("reviews", "Predict", "REST", Code.DEADLINE_EXCEEDED, 30)
    assert samples(metrics, f"{LATENCY}_count") == []


def test_latency_buckets_grow_by_1_8_from_10_microseconds(metrics):
    metrics.request("reviews", "Predict", "REST", Code.OK, 0.000_018)
    metrics.request("reviews", "Predict", "REST", Code.OK, 0.7)
    metrics.request("reviews", "Predict", "REST", Code.OK, 86_400)
    buckets = {bound: count for (bound,), count in values(metrics, f"{LATENCY}_bucket", "le").items()}
    assert list(buckets)[:6] == ["10", "18", "32.4", "58.32", "104.976", "188.957"]
    assert list(buckets)[-3:] == ["8.19309e+08", "1.47476e+09", "+Inf"]
    assert len(buckets) == 34
    assert (buckets["10"], buckets["18"], buckets["393464"], buckets["708235"], buckets["+Inf"]) == (0, 1, 1, 2, 3)


def test_runtime_latency_names_the_runtime(metrics):
    metrics.runtime("reviews", "Predict", 0.0008)
    labels = ("model_name", "API", "runtime")
    name = ":tensorflow:serving:runtime_latency"
    assert values(metrics, f"{name}_sum", *labels) == {("reviews", "Predict", "TF1"): pytest.approx(800)}


def test_names_that_no_model_has_make_no_series(repository):
    metrics = ServingMetrics(repository)
    metrics.request("none", "Predict", "REST", Code.NOT_FOUND, 0.001)
    before = metrics.exposition().count(b"\n")
    for number in range(500):
        metrics.request(f"none {number}", "Predict", "REST", Code.NOT_FOUND, 0.001)
    metrics.request("reviews", "Predict", "REST", Code.OK, 0.001)
    assert values(metrics, ":valence:unknown_model_count", "status") == {("NOT_FOUND",): 501}
    assert values(metrics, REQUESTS, "model_name", "status") == {("reviews", "OK"): 1}
    assert metrics.exposition().count(b"\n") <= before + 37  # of the request that was for a model
    metrics.close()


def test_a_model_that_comes_later_is_counted_from_then_on():
    names = ["one"]
    metrics = ServingMetrics(SimpleNamespace(names=lambda: names, lease=None))
    metrics.request("two", "Predict", "REST", Code.NOT_FOUND, 0.001)
    names.append("two")
    metrics.request("two", "Predict", "REST", Code.OK, 0.001)
    assert values(metrics, REQUESTS, "model_name", "status") == {("two", "OK"): 1}
    metrics.close()


def test_requests_in_progress_go_up_and_down(metrics):
    name = ":valence:requests_in_progress"
    assert total(metrics, name) == 0
    metrics.in_progress(1)
    metrics.in_progress(1)
    metrics.in_progress(-1)
    assert total(metrics, name) == 1


def test_no_request_of_several_threads_is_lost(metrics):
    def work() -> None:
        for _ in range(500):
            metrics.request("reviews", "Predict", "REST", Code.OK, 0.001)
            metrics.in_progress(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total(metrics, REQUESTS) == total(metrics, f"{LATENCY}_count") == 4000
    assert total(metrics, ":valence:requests_in_progress") == 4000


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "a\\nb", "電影", "", 'x",status="OK'])
def test_any_label_value_is_read_back_as_it_is(metrics, value):
    metrics.request(value, "Predict", "REST", Code.OK, 0.001)
    assert values(metrics, REQUESTS, "model_name", "status") == {(value, "OK"): 1}


def test_half_of_a_surrogate_pair_does_not_break_the_exposition(metrics):
    metrics.request("a\ud800b", "Predict", "REST", Code.OK, 0.001)
    assert values(metrics, REQUESTS, "model_name") == {("a?b",): 1}


def test_the_process_tells_of_its_memory_time_and_files(metrics):
    for name in ("process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds", "python_info"):
        assert total(metrics, name) > 0


def test_the_metrics_can_be_imported_without_tensorflow():
    code = "import sys, app.serving.metrics; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


# --- batches and loads ---


def test_a_full_batch_is_counted_once_over_the_requests_in_it(metrics):
    for rows in (1, 2, 5):
        metrics.batch(rows, 8)
    name = ":tensorflow:serving:batching_session:"
    assert total(metrics, f"{name}processed_batch_size_count") == 1
    assert total(metrics, f"{name}processed_batch_size_sum") == 8
    assert total(metrics, f"{name}input_batch_size_count") == 3
    assert total(metrics, f"{name}input_batch_size_sum") == 8


def test_the_statistics_own_runs_are_no_requests_in_a_batch(models):
    told: list[ServingMetrics] = []
    load = partial(Servable, batching=BatchingParameters(), on_batch=lambda rows, size: told[0].batch(rows, size))
    repository = ModelRepository([ModelSettings("reviews", models)], load, poll_seconds=0, warm_up=False)
    told.append(ServingMetrics(repository))
    repository.start()
    with repository.lease(ModelSpec("reviews")) as servable:
        ask(told[0], servable, "fine", "dull", "+")
    told[0].flush()
    assert total(told[0], ":valence:token_count_count") == 3
    assert total(told[0], ":tensorflow:serving:batching_session:input_batch_size_sum") == 3
    assert total(told[0], ":tensorflow:serving:batching_session:processed_batch_size_count") == 1
    told[0].close()
    repository.close()


def test_thirds_of_a_batch_make_a_whole_one(metrics):
    for _ in range(3 * 7):
        metrics.batch(1, 3)
    assert total(metrics, ":tensorflow:serving:batching_session:processed_batch_size_count") == 7


def test_loads_are_counted_by_folder_and_outcome(metrics, tmp_path):
    with metrics.loading(tmp_path / "1"):
        pass
    with pytest.raises(RuntimeError), metrics.loading(tmp_path / "2"):
        raise RuntimeError("damaged")
    name = ":tensorflow:cc:saved_model:"
    assert values(metrics, f"{name}load_attempt_count", "model_path", "status") == {
        (str(tmp_path / "1"), "success"): 1,
        (str(tmp_path / "2"), "fail"): 1,
    }
    assert list(values(metrics, f"{name}load_latency", "model_path")) == [(str(tmp_path / "1"),)]


def test_only_the_last_folders_that_were_loaded_are_told_of(metrics):
    for version in range(KEPT_LOADS + 20):
        with metrics.loading(Path(f"/models/{version}")):
            pass
    told = [path for (path,) in values(metrics, ":tensorflow:cc:saved_model:load_latency", "model_path")]
    assert told == [f"/models/{version}" for version in range(20, KEPT_LOADS + 20)]


# --- texts and answers ---


def test_what_a_classifier_is_asked_and_answers_is_counted(repository):
    metrics = ServingMetrics(repository)
    with repository.lease(ModelSpec("reviews")) as servable:
        ask(metrics, servable, "fine +", "no Title Here now and then", "電影")
        ask(metrics, servable, "")
    metrics.flush()
    version = ("model_name", "version")
    assert values(metrics, ":valence:label_count", *version, "label") == {
        ("reviews", "1", "positive"): 1,
        ("reviews", "1", "negative"): 3,
    }
    told = {
        name: (total(metrics, f":valence:{name}_count"), total(metrics, f":valence:{name}_sum"))
        for name in ("text_length", "confidence", "token_count", "unknown_share")
    }
    assert told == {
        "text_length": (4, 6 + 26 + 2),  # characters, not bytes
        "confidence": (4, pytest.approx(0.9 + 3 * 0.6)),
        "token_count": (4, 2 + 6 + 1),
        "unknown_share": (4, pytest.approx(2 / 6)),
    }
    assert values(metrics, ":valence:truncated_count", *version) == {("reviews", "1"): 1}
    assert samples(metrics, ":valence:unobserved_count") == samples(metrics, ":valence:untokenized_count") == []
    metrics.close()


def test_the_thread_counts_without_being_asked(repository):
    metrics = ServingMetrics(repository)
    with repository.lease(ModelSpec("reviews")) as servable:
        ask(metrics, servable, "fine")
    waiting = threading.Event()
    for _ in range(PATIENCE * 20):
        if total(metrics, ":valence:token_count_count"):
            break
        waiting.wait(0.05)
    assert total(metrics, ":valence:token_count_count") == 1
    metrics.close()


def test_no_texts_are_no_observations(repository):
    metrics = ServingMetrics(repository)
    with repository.lease(ModelSpec("reviews")) as servable:
        ask(metrics, servable)
    metrics.flush()
    assert total(metrics, ":valence:text_length_count") == total(metrics, ":valence:token_count_count") == 0
    metrics.close()


def test_a_version_unloaded_meanwhile_is_not_run_and_its_texts_count_as_untokenized(models):
    repository = ModelRepository([ModelSettings("reviews", models)], Servable, poll_seconds=0)
    repository.start()
    metrics = ServingMetrics(repository)
    with repository.lease(ModelSpec("reviews")) as servable:
        inputs = {"text": strings("fine", "dull")}
        outputs = servable.run("serving_default", inputs)
    repository.close()
    metrics.answered("reviews", servable, inputs, outputs)
    metrics.flush()
    assert total(metrics, ":valence:text_length_count") == 2
    assert total(metrics, ":valence:token_count_count") == 0
    assert values(metrics, ":valence:untokenized_count", "model_name") == {("reviews",): 2}
    metrics.close()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"x": np.zeros(2)}, {"y": np.zeros(2)}),
        ({"text": strings("a")}, {"label": strings("b")}),
        ({"text": strings("a")}, {"label": np.array([1]), "confidence": np.array([0.5])}),
        ({"text": strings("a")}, {"label": strings("b"), "confidence": np.array([1])}),
        ({"text": strings("a", "b").reshape(1, 2)}, {"label": strings("b"), "confidence": np.array([0.5])}),
        ({"text": strings("a", "b")}, {"label": strings("a"), "confidence": np.array([0.5])}),
        ({"text": np.array(b"a", object)}, {"label": np.array(b"b", object), "confidence": np.array(0.5)}),
    ],
    ids=[
        "other names",
        "no confidence",
        "numbers for labels",
        "whole numbers",
        "a table of texts",
        "fewer answers",
        "no rows",
    ],
)
def test_a_model_that_is_no_classifier_has_no_labels_to_count(metrics, inputs, outputs):
    metrics.answered("reviews", SimpleNamespace(version=1), inputs, outputs)
    metrics.flush()
    assert b":valence:label_count{" not in metrics.exposition()
    assert b":valence:unobserved_count{" not in metrics.exposition()


def test_where_text_statistics_gives_something_else_texts_are_counted_without_tokens():
    @contextmanager
    def lease(spec: ModelSpec) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(signatures={"text_statistics": None}, run=lambda name, inputs: {"tokens": inputs})

    drift = DriftStatistics(lease)
    drift.answered(answer("a", "b"))
    drift.flush()
    drift.answered(answer("c"))
    drift.close()
    assert values(drift, ":valence:untokenized_count", "model_name") == {("reviews",): 3}
    assert total(drift, ":valence:text_length_count") == 3
    assert samples(drift, ":valence:unobserved_count") == []


def test_answers_that_cannot_be_read_are_left_out_and_do_not_end_the_thread(metrics):
    for labels in (np.array([1, 2], object), strings("a", "b")):
        outputs = {"label": labels, "confidence": np.array([0.5, 0.5])}
        metrics.answered("reviews", SimpleNamespace(version=1), {"text": strings("a", "b")}, outputs)
        metrics.flush()
    assert values(metrics, ":valence:unobserved_count", "model_name") == {("reviews",): 2}
    assert total(metrics, ":valence:label_count") == total(metrics, ":valence:text_length_count") == 2


def test_labels_that_never_end_share_one_series(metrics):
    count = 3 * MAX_LABELS
    texts = strings(*[f"text {number}" for number in range(count)])
    outputs = {"label": texts, "confidence": np.full(count, 0.5)}
    metrics.answered("echo", SimpleNamespace(version=1), {"text": texts}, outputs)
    metrics.flush()
    told = values(metrics, ":valence:label_count", "label")
    assert len(told) == MAX_LABELS + 1
    assert told[(OTHER_LABELS,)] == 2 * MAX_LABELS
    assert sum(told.values()) == count


def test_only_the_last_versions_of_each_model_keep_their_series():
    drift = DriftStatistics()
    drift.answered(answer("a", model="other"))
    for version in range(1, KEPT_VERSIONS + 6):
        drift.answered(answer("a", version=version))
    drift.flush()
    kept = [("reviews", str(version)) for version in range(6, KEPT_VERSIONS + 6)]
    for name in ("label_count", "text_length_count", "confidence_count"):
        assert list(values(drift, f":valence:{name}", "model_name", "version")) == [("other", "1"), *kept]
    drift.close()


def test_closing_counts_what_waits():
    drift = DriftStatistics()
    for _ in range(100):
        drift.answered(answer("a"))
    drift.close()
    assert total(drift, ":valence:label_count") == 100


# --- too much of it ---


def test_a_request_never_waits_for_statistics_that_are_behind():
    entered, go_on = threading.Event(), threading.Event()

    @contextmanager
    def lease(spec: ModelSpec) -> Iterator[SimpleNamespace]:
        entered.set()
        assert go_on.wait(PATIENCE)
        yield SimpleNamespace(signatures={})

    drift = DriftStatistics(lease)
    drift.answered(answer("first"))
    assert entered.wait(PATIENCE)
    for _ in range(MAX_WAITING + 10):
        drift.answered(answer("one", "two"))
    assert values(drift, ":valence:unobserved_count", "model_name") == {("reviews",): 20}
    go_on.set()
    drift.flush()
    assert total(drift, ":valence:label_count") == 1 + 2 * MAX_WAITING
    drift.close()


def test_texts_that_wait_take_bounded_memory():
    drift = DriftStatistics()
    drift.answered(answer("x" * (MAX_WAITING_BYTES + 1)))
    drift.answered(answer("short"))
    drift.flush()
    assert total(drift, ":valence:unobserved_count") == 1
    assert total(drift, ":valence:text_length_count") == 1
    drift.close()


def test_texts_beyond_the_allowance_are_counted_without_their_tokens(repository):
    drift = DriftStatistics(repository.lease, tokenized_bytes_per_second=1e-6)
    drift.answered(answer("a first text", "a second one"))
    drift.answered(answer("a third"))
    drift.flush()
    assert total(drift, ":valence:text_length_count") == 3
    assert total(drift, ":valence:token_count_sum") == 3  # of the first, taken on credit
    assert total(drift, ":valence:untokenized_count") == 2
    drift.close()


def test_more_texts_than_one_run_takes_are_all_tokenized(repository):
    drift = DriftStatistics(repository.lease)
    drift.answered(answer(*["two words"] * 100))
    drift.flush()
    assert (total(drift, ":valence:token_count_count"), total(drift, ":valence:token_count_sum")) == (100, 200)
    drift.close()


# --- the series themselves ---


def test_a_histogram_counts_a_value_at_its_bound_below_it():
    histogram = Histogram("size", "Sizes.", (1, 2, 4))
    histogram.observe_all((), [1, 2, 3])
    histogram.observe((), 9)
    assert list(histogram.lines()) == [
        "# HELP size Sizes.",
        "# TYPE size histogram",
        'size_bucket{le="1"} 1.0',
        'size_bucket{le="2"} 2.0',
        'size_bucket{le="4"} 3.0',
        'size_bucket{le="+Inf"} 4.0',
        "size_sum 15.0",
        "size_count 4.0",
    ]


def test_forgetting_drops_the_series_that_begin_so():
    counter = Counter("loads", "Loads.", ("path", "status"))
    for labels in (("a", "ok"), ("a", "fail"), ("b", "ok")):
        counter.add(labels)
    counter.forget("a")
    assert [line for line in counter.lines() if line[0] != "#"] == ['loads{path="b",status="ok"} 1.0']
