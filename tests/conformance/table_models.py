"""Models, versions, labels, signatures, and failures of a graph with the HTTP status of their code."""

from __future__ import annotations

import json

from conformance.cases import EXAMPLES, TOY, VERSIONS, Case, Error, ErrorLike, Json, columns, named, rows

ROWS = b'{"instances": ["a", "b"]}'
AVAILABLE = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
VERSION_2, VERSION_1 = {"version": "2", **AVAILABLE}, {"version": "1", **AVAILABLE}


def tensor(name: str, dtype: str, *sizes: str) -> dict:
    shape = {"dim": [{"size": size, "name": ""} for size in sizes], "unknown_rank": False}
    return {"dtype": dtype, "tensor_shape": shape, "name": name}


def status(*versions: dict) -> Json:
    return Json({"model_version_status": list(versions)})


VERSIONS_AND_LABELS = [
    Case("the highest version answers", "POST", f"{VERSIONS}:predict", ROWS, 200, rows(2, 2)),
    Case("the older version", "POST", f"{VERSIONS}/versions/1:predict", ROWS, 200, rows(1, 1)),
    Case("the newer version", "POST", f"{VERSIONS}/versions/2:predict", ROWS, 200, rows(2, 2)),
    Case("the label stable", "POST", f"{VERSIONS}/labels/stable:predict", ROWS, 200, rows(1, 1)),
    Case("the label canary", "POST", f"{VERSIONS}/labels/canary:predict", ROWS, 200, rows(2, 2)),
    Case("labels in capitals in the path", "POST", f"{VERSIONS}/LABELS/canary:predict", ROWS, 200, rows(2, 2)),
    Case("a label percent-encoded", "POST", f"{VERSIONS}/labels/%73table:predict", ROWS, 200, rows(1, 1)),
    Case(
        "a label's case counts",
        "POST",
        f"{VERSIONS}/labels/Stable:predict",
        ROWS,
        400,
        Error("Unrecognized servable version label: Stable"),
    ),
    Case(
        "a label of another model",
        "POST",
        f"{TOY}/labels/stable:predict",
        ROWS,
        400,
        Error("Unrecognized servable version label: stable"),
    ),
    Case(
        "a label of no model",
        "POST",
        "/v1/models/none/labels/stable:predict",
        ROWS,
        400,
        Error("Unrecognized servable version label: stable"),
    ),
    Case("status, newest first", "GET", VERSIONS, None, 200, status(VERSION_2, VERSION_1)),
    Case("status of one of two versions", "GET", f"{VERSIONS}/versions/1", None, 200, status(VERSION_1)),
    Case("status ignores a label", "GET", f"{VERSIONS}/labels/stable", None, 200, status(VERSION_2, VERSION_1)),
    Case("status ignores an unknown label", "GET", f"{VERSIONS}/labels/no", None, 200, status(VERSION_2, VERSION_1)),
    Case("status of another model", "GET", EXAMPLES, None, 200, status(VERSION_1)),
    Case(
        "folders that are no versions are not versions",
        "GET",
        f"{TOY}/versions/9",
        None,
        404,
        Error("Could not find version 9 of model toy"),
    ),
]


def failure(name: str, signature: str, value: object, status: int, pattern: str) -> Case:
    body = named(json.dumps({"inputs": value}), signature)
    expected = ErrorLike(pattern)
    return Case(f"status of a failed graph: {name}", "POST", f"{TOY}:predict", body, status, expected)


# What the graphs raise here is what TensorFlow's own kernels raise, with their codes.
GRAPH_FAILURES = [
    failure("InvalidArgument is 400", "positive", [-1], 400, r"assertion failed: \[not positive"),
    failure("FailedPrecondition is 400", "read", "/", 400, "/; Is a directory"),
    failure("OutOfRange is 400", "first", 0, 400, "End of sequence"),
    failure("NotFound is 404", "read", "/no/such/file", 404, "/no/such/file; No such file or directory"),
    failure("ResourceExhausted is 429", "room", 2**50, 429, "OOM when allocating tensor"),
    failure("DataLoss is 500", "unpack", "garbage", 500, r"inflate\(\) failed"),
    Case(
        "and answers go on after failures",
        "POST",
        f"{TOY}:predict",
        named('{"inputs": 3}', "first"),
        200,
        columns(0),
    ),
]

CASES = [*VERSIONS_AND_LABELS, *GRAPH_FAILURES]

# --- metadata: of a model of one signature as a whole, of the others piece by piece ---

# What TensorFlow itself writes beside the signatures: an entry point to initialise the graph.
INTERNAL = "__saved_model_init_op"
METADATA_OF_VERSION = {
    "inputs": {"text": tensor("serving_default_text:0", "DT_STRING", "-1")},
    "outputs": {"version": tensor("StatefulPartitionedCall:0", "DT_INT32", "-1")},
    "method_name": "tensorflow/serving/predict",
    "defaults": {},
}
INPUTS_AND_OUTPUTS = {
    "matrix": ({"x": ("DT_FLOAT", ["-1", "2"])}, {"y": ("DT_FLOAT", ["-1", "2"])}),
    "two": (
        {"a": ("DT_FLOAT", ["-1"]), "b": ("DT_INT64", ["-1"])},
        {"sum": ("DT_FLOAT", ["-1"]), "double_b": ("DT_INT64", ["-1"])},
    ),
    "scalar": ({"text": ("DT_STRING", [])}, {"length": ("DT_INT32", []), "text": ("DT_STRING", [])}),
    "cube": ({"x": ("DT_INT32", ["-1", "-1", "-1"])}, {"y": ("DT_INT32", ["-1", "-1", "-1"])}),
    "as_bytes": ({"text": ("DT_STRING", ["-1"])}, {"raw_bytes": ("DT_STRING", ["-1"])}),
    "bfloat16": ({"x": ("DT_FLOAT", ["-1"])}, {"y": ("DT_BFLOAT16", ["-1"])}),
    "bool": ({"x": ("DT_BOOL", ["-1"])}, {"y": ("DT_BOOL", ["-1"])}),
    "int8": ({"x": ("DT_INT8", ["-1"])}, {"y": ("DT_INT8", ["-1"])}),
    "uint64": ({"x": ("DT_UINT64", ["-1"])}, {"y": ("DT_UINT64", ["-1"])}),
}
