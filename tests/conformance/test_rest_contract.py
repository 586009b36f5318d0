"""TensorFlow Serving's REST contract: every case of the tables, over real HTTP."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from app.serving.status import Code, ServingError
from conformance import table_documents, table_examples, table_limits, table_models, table_routes, table_values
from conformance.cases import EXAMPLES, TOY, VERSIONS, Case, error_of
from conformance.table_limits import PREDICT, instances
from conformance.table_models import INPUTS_AND_OUTPUTS, INTERNAL, METADATA_OF_VERSION
from conformance.toy_models import DTYPES, PREDICT_SIGNATURES
from conformance.wire import Answer, exchange

TABLES = {
    "routes": table_routes.CASES,
    "documents": table_documents.CASES,
    "values": table_values.CASES,
    "examples": table_examples.CASES,
    "models": table_models.CASES,
}
CASES = [pytest.param(case, id=f"{table}: {case.name}") for table, cases in TABLES.items() for case in cases]
LIMITS = [pytest.param(case, id=f"limits: {case.name}") for case in table_limits.CASES]

PATIENCE = 60  # seconds for what has to come
# Steps of the loop that keep a batch thread busy for a while and still end before the deadline of two seconds.
BUSY = 100_000


def ask(url: str, case: Case) -> Answer:
    return exchange(url, case.method, case.target, case.body, case.headers)


def metadata(url: str, model: str) -> dict:
    answer = exchange(url, "GET", f"{model}/metadata")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    return json.loads(answer.body)


def signatures(url: str, model: str) -> dict:
    return metadata(url, model)["metadata"]["signature_def"]["signature_def"]


@pytest.mark.parametrize("case", CASES)
def test_the_server_answers_as_the_contract_says(server, case):
    case.check(ask(server.url, case))


@pytest.mark.parametrize("case", LIMITS)
def test_batches_and_deadlines_are_answered_as_the_contract_says(limited_server, case):
    case.check(ask(limited_server.url, case))


def test_no_two_cases_ask_for_the_same():
    names = [case.name for case in chain(*TABLES.values(), table_limits.CASES)]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert len(names) >= 250


# --- metadata ---


def test_metadata_of_one_signature_as_a_whole(server):
    found = metadata(server.url, f"{VERSIONS}/versions/1")
    found["metadata"]["signature_def"]["signature_def"].pop(INTERNAL)
    assert found == {
        "model_spec": {"name": "two versions", "version": "1", "signature_name": ""},
        "metadata": {"signature_def": {"signature_def": {"serving_default": METADATA_OF_VERSION}}},
    }


@pytest.mark.parametrize(("path", "version"), [("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")])
def test_metadata_names_the_version_that_a_request_would_get(server, path, version):
    assert metadata(server.url, VERSIONS + path)["model_spec"]["version"] == version


def test_metadata_has_every_signature(server):
    declared = {"serving_default", *PREDICT_SIGNATURES, *(dtype.name for dtype in DTYPES)}
    assert set(signatures(server.url, TOY)) - {INTERNAL} == declared


@pytest.mark.parametrize(("signature", "declared"), INPUTS_AND_OUTPUTS.items())
def test_metadata_declares_types_and_shapes(server, signature, declared):
    found = signatures(server.url, TOY)[signature]
    for side, tensors in zip(("inputs", "outputs"), declared, strict=True):
        for name, (dtype, sizes) in tensors.items():
            dimensions = [{"size": size, "name": ""} for size in sizes]
            assert found[side][name]["dtype"] == dtype
            assert found[side][name]["tensor_shape"] == {"dim": dimensions, "unknown_rank": False}
        assert found[side].keys() == tensors.keys()


def test_metadata_tells_what_a_signature_is_for(server):
    methods = {name: signature["method_name"] for name, signature in signatures(server.url, EXAMPLES).items()}
    assert methods.pop(INTERNAL) == ""
    classify, regress = "tensorflow/serving/classify", "tensorflow/serving/regress"
    assert methods == {
        **dict.fromkeys(("serving_default", "classes_only", "scores_only"), classify),
        **dict.fromkeys(("value", "column"), regress),
    }


# --- what takes more than one request, or more than HTTP ---


def test_a_version_without_a_saved_model_ends_as_not_found_and_the_older_one_serves_on(server):
    if server.models is None:
        pytest.skip("puts a folder beside the served versions: needs a server of our own")
    (server.models / "toy" / "5").mkdir()
    end = time.monotonic() + PATIENCE
    found: list[dict] = []
    while time.monotonic() < end and [version["state"] for version in found] != ["END", "AVAILABLE"]:
        found = json.loads(exchange(server.url, "GET", TOY).body)["model_version_status"]
        time.sleep(0.1)
    (server.models / "toy" / "5").rmdir()
    broken, older = found
    assert (broken["version"], broken["state"], broken["status"]["error_code"]) == ("5", "END", "NOT_FOUND")
    assert "saved_model.pb" in broken["status"]["error_message"]
    assert (older["version"], older["state"]) == ("3", "AVAILABLE")
    assert exchange(server.url, "POST", f"{TOY}:predict", b'{"inputs": []}').status == 200


def test_a_full_queue_of_batches_is_503(limited_server):
    def busy(_: int) -> Answer:
        return exchange(limited_server.url, "POST", PREDICT, instances("slow", *[BUSY] * 8))

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(busy, range(12)))
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.status for answer in answers} <= {200, 503, 504}
    assert refused
    assert all(error_of(answer).startswith("The batch scheduling queue") for answer in refused)


def test_metrics_are_served_under_tensorflow_servings_path_and_name(server):
    exchange(server.url, "POST", f"{TOY}:predict", b'{"instances": ["a"]}')
    answer = exchange(server.url, "GET", "/monitoring/prometheus/metrics")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert b":tensorflow:serving:request_count" in answer.body


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ("OK", 200),
        ("INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE", 400),
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS ABORTED", 409),
        ("RESOURCE_EXHAUSTED", 429),
        ("CANCELLED", 499),
        ("UNKNOWN INTERNAL DATA_LOSS", 500),
        ("UNIMPLEMENTED", 501),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
    ],
)
def test_each_code_has_its_http_status(codes, status):
    """Graphs raise some of them over HTTP in the tables; what none raises is looked up where all are."""
    assert {ServingError(Code[code], "").http_status for code in codes.split()} == {status}
