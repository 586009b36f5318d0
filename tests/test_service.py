"""The service behind REST and gRPC: which version and signature a request gets, and what is checked before it runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from app.serving.metrics import ServingMetrics
from app.serving.model_config import ModelSettings, VersionPolicy
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.servable import Servable
from app.serving.service import PredictionService, find_signature, predict, too_many_rows
from app.serving.status import Code, ServingError


class Toy(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def double(self, x):
        return {"y": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
    def any_rank(self, x):
        return {"y": 3 * x}

    @tf.function(input_signature=[])
    def no_input(self):
        return {"y": tf.constant(1)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    base, toy = tmp_path_factory.mktemp("models") / "toy", Toy()
    signatures = {"serving_default": toy.double, "any_rank": toy.any_rank, "no_input": toy.no_input}
    for version in ("1", "2"):
        tf.saved_model.save(toy, str(base / version), signatures=signatures)
    settings = ModelSettings("toy", base, VersionPolicy("all"), {"stable": 1})
    repository = ModelRepository([settings], Servable, poll_seconds=0)
    repository.start()
    metrics = ServingMetrics()
    yield PredictionService(repository, metrics)
    metrics.close()
    repository.close()


def refusal(caught: pytest.ExceptionInfo[ServingError]) -> tuple[Code, str]:
    return caught.value.code, caught.value.message


@pytest.mark.parametrize(
    ("spec", "version"),
    [(ModelSpec("toy"), 2), (ModelSpec("toy", 1), 1), (ModelSpec("toy", label="stable"), 1)],
)
def test_a_request_gets_the_version_it_names_or_the_latest(service, spec, version):
    with service.lease(spec) as servable:
        assert servable.version == version
    assert service.metadata(spec).version == version


def test_a_model_that_is_not_there(service):
    with pytest.raises(ServingError) as caught, service.lease(ModelSpec("none")):
        pass
    assert refusal(caught) == (Code.NOT_FOUND, "Servable not found for request: Latest(none)")
    with pytest.raises(ServingError) as caught:
        service.statuses(ModelSpec("none"))
    assert refusal(caught) == (Code.NOT_FOUND, "Could not find any versions of model none")


def test_statuses_are_the_versions_newest_first(service):
    assert [(status.version, str(status.state)) for status in service.statuses(ModelSpec("toy"))] == [
        (2, "AVAILABLE"),
        (1, "AVAILABLE"),
    ]


def test_metadata_tells_the_signatures(service):
    signatures = service.metadata(ModelSpec("toy")).signature_def
    assert signatures["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert {"any_rank", "no_input"} < set(signatures)


def test_a_signature_is_found_by_name_and_serving_default_without(service):
    with service.lease(ModelSpec("toy")) as servable:
        assert find_signature(servable, "").name == "serving_default"
        assert find_signature(servable, "any_rank").name == "any_rank"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", 'Serving signature name: "nope" not found in signature def'),
        ("no_input", "Failed to get input map for signature: no_input"),
    ],
)
def test_a_signature_that_cannot_be_asked(service, name, message):
    with service.lease(ModelSpec("toy")) as servable, pytest.raises(ServingError) as caught:
        find_signature(servable, name)
    assert refusal(caught) == (Code.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("signature", "x", "y"),
    [
        ("serving_default", [[1, 2]], [[2, 4]]),
        ("serving_default", np.zeros((0, 2)), []),
        ("any_rank", 1, 3),
        ("any_rank", [[[1]]], [[[3]]]),
    ],
)
def test_predict_runs_what_fits_the_signature(service, signature, x, y):
    with service.lease(ModelSpec("toy")) as servable:
        outputs = predict(servable, find_signature(servable, signature), {"x": np.array(x, np.float32)})
    assert outputs["y"].tolist() == y


@pytest.mark.parametrize("shape", [(), (2,), (1, 3), (1, 2, 1)])
def test_a_shape_that_the_signature_does_not_take(service, shape):
    with service.lease(ModelSpec("toy")) as servable, pytest.raises(ServingError) as caught:
        predict(servable, find_signature(servable, ""), {"x": np.zeros(shape, np.float32)})
    given = ",".join(map(str, shape))
    assert refusal(caught) == (
        Code.INVALID_ARGUMENT,
        f"Input x has shape [{given}] but the signature takes [-1,2]",
    )


def test_a_graphs_time_is_counted_when_it_answered(service):
    with service.timed("timed", "Predict"):
        pass
    with pytest.raises(ServingError), service.timed("failed", "Predict"):
        raise too_many_rows(2, 1)
    exposition = service.metrics.exposition().decode()
    assert 'runtime_latency_count{API="Predict",model_name="timed",runtime="TF1"} 1.0' in exposition
    assert "failed" not in exposition


def test_too_many_rows_are_told_with_the_limit():
    error = too_many_rows(11, 10)
    assert (error.http_status, error.message) == (
        400,
        "The request has 11 rows: at most 10 are allowed; ask in several requests",
    )


def test_the_service_can_be_imported_without_tensorflow():
    code = "import sys, app.serving.service, app.serving.http.examples_json; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
