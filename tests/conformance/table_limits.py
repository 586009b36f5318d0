"""A server with `--enable_batching`, `--batching_parameters_file` and `--rest_api_timeout_in_ms`."""

from __future__ import annotations

import json

from conformance.cases import EXAMPLES, TOY, Case, Error, Json, columns, named, rows

FOREVER = 10**12  # steps of a loop that no machine does in time
TOO_LARGE = Error("Task size 9 is larger than maximum input batch size 8")
PREDICT = f"{TOY}:predict"


def instances(signature: str, *values: object) -> bytes:
    return named(json.dumps({"instances": values}), signature)


CASES = [
    Case("one row", "POST", PREDICT, instances("string", "a"), 200, rows("a")),
    Case("rows padded to an allowed size", "POST", PREDICT, instances("string", *"abc"), 200, rows(*"abc")),
    Case("as many rows as allowed", "POST", PREDICT, instances("int64", *range(8)), 200, rows(*range(8))),
    Case("a row too many", "POST", PREDICT, instances("int64", *range(9)), 400, TOO_LARGE),
    Case(
        "a row too many, as columns",
        "POST",
        PREDICT,
        named('{"inputs": ["","","","","","","","",""]}', "string"),
        400,
        TOO_LARGE,
    ),
    Case(
        "several inputs and outputs",
        "POST",
        PREDICT,
        instances("two", {"a": 0.5, "b": 2}, {"a": 1, "b": 1}, {"a": 0, "b": 0}),
        200,
        rows({"sum": 2.5, "double_b": 4}, {"sum": 2.0, "double_b": 2}, {"sum": 0.0, "double_b": 0}),
    ),
    Case("columns", "POST", PREDICT, named('{"inputs": [1, 2]}', "int8"), 200, columns([1, 2])),
    Case(
        "examples in one batch",
        "POST",
        f"{EXAMPLES}:classify",
        b'{"examples": [{"x": 0.25}, {"x": 1.0}, {"x": 0.0}]}',
        200,
        Json(
            {
                "results": [
                    [["low", 0.75], ["high", 0.25]],
                    [["low", 0.0], ["high", 1.0]],
                    [["low", 1.0], ["high", 0.0]],
                ]
            }
        ),
    ),
    Case(
        "too many examples",
        "POST",
        f"{EXAMPLES}:classify",
        json.dumps({"examples": 9 * [{"x": 0.5}]}).encode(),
        400,
        TOO_LARGE,
    ),
    Case(
        "a slow answer", "POST", PREDICT, instances("slow", FOREVER), 504, Error("Timed out waiting for notification")
    ),
    Case("a fast answer after a slow one", "POST", PREDICT, instances("slow", 3, 2), 200, rows(3, 2)),
]
