"""Classify and regress: tf.Example records in JSON, and their answers."""

from __future__ import annotations

from conformance.cases import EXAMPLES, TOY, Case, Error, ErrorLike, Expected, Json, NumberTexts, named, quoted

NO_EXAMPLES = "When method is classify, key 'examples' is expected and was not found"
FOR_PREDICT = "Expected {0} signature method_name to be tensorflow/serving/{1}. Was: tensorflow/serving/predict"


def results(*values: object) -> Json:
    return Json({"results": list(values)})


def ask(verb: str, name: str, signature: str, body: str, expected: Expected, target: str = EXAMPLES) -> Case:
    status = 400 if isinstance(expected, Error | ErrorLike) else 200
    return Case(f"{verb}: {name}", "POST", f"{target}:{verb}", named(body, signature), status, expected)


def class_pairs(x: float) -> list:
    return [["low", 1 - x], ["high", x]]


CLASSIFIED = [
    ask("classify", "one example", "", '{"examples": [{"x": 0.25}]}', results(class_pairs(0.25))),
    ask(
        "classify",
        "two examples",
        "serving_default",
        '{"examples": [{"x": 0.25}, {"x": 1.0}]}',
        results(class_pairs(0.25), class_pairs(1.0)),
    ),
    ask("classify", "a feature as list", "", '{"examples": [{"x": [0.25]}]}', results(class_pairs(0.25))),
    ask("classify", "a default feature", "", '{"examples": [{"x": 0.25, "bias": 0.5}]}', results(class_pairs(0.75))),
    ask("classify", "unknown features", "", '{"examples": [{"x": 0.25, "y": ["z"]}]}', results(class_pairs(0.25))),
    ask(
        "classify",
        "a context",
        "",
        '{"context": {"bias": 0.5}, "examples": [{"x": 0.25}, {"x": 0.0}]}',
        results(class_pairs(0.75), class_pairs(0.5)),
    ),
    ask("classify", "other keys", "", '{"instances": [1], "examples": [{"x": 0.25}]}', results(class_pairs(0.25))),
    ask(
        "classify",
        "classes without scores",
        "classes_only",
        '{"examples": [{"x": 0.0, "word": "ż"}, {"x": 0.0, "word": {"b64": "YWI="}}]}',
        results([["ż", 0.0]], [["ab", 0.0]]),
    ),
    ask("classify", "scores without classes", "scores_only", '{"examples": [{"x": 0.25}]}', results([["", 0.25]])),
    ask(
        "classify",
        "texts of scores",
        "",
        '{"examples": [{"x": 0.1}]}',
        NumberTexts({"results": [[["low", "0.9"], ["high", "0.1"]]]}),
    ),
]

REGRESSED = [
    ask("regress", "one example", "value", '{"examples": [{"x": 2.5}]}', results(2.5)),
    ask("regress", "two examples", "value", '{"examples": [{"x": 2.5}, {"x": -1.0}]}', results(2.5, -1.0)),
    ask("regress", "a column of values", "column", '{"examples": [{"x": 2.5}, {"x": 1.0}]}', results(2.5, 1.0)),
    ask("regress", "a context", "value", '{"context": {"bias": 1.0}, "examples": [{"x": 2.5}]}', results(3.5)),
    ask(
        "regress",
        "texts of values",
        "value",
        '{"examples": [{"x": 9e6}, {"x": 3.0}, {"x": 123456.703}]}',
        NumberTexts({"results": ["9e+06", "3.0", "123456.703"]}),
    ),
]


def refused(name: str, body: str, text: str) -> Case:
    return ask("classify", name, "", body, Error(text))


def not_a_list(name: str, document: dict, problem: str) -> Case:
    return refused(name, quoted(document), f"JSON Value: {quoted(document)} {problem}")


ERRORS = [
    refused("empty body", "", "JSON Parse error: The document is empty"),
    refused("a list", "[1]", "JSON Value: [\n    1\n] Is not object"),
    not_a_list("no examples", {"instances": [1]}, NO_EXAMPLES),
    not_a_list("examples in an object", {"examples": {"x": 1.0}}, "Expecting 'examples' value to be an list/array"),
    not_a_list("no example in the list", {"examples": []}, "'examples' value is an empty array"),
    refused("an example that is a number", '{"examples": [1]}', "Example must be JSON object but got JSON Number"),
    refused(
        "a context in a list", '{"context": [], "examples": [{}]}', "Example must be JSON object but got JSON Array"
    ),
    refused("null", '{"examples": [{"x": null}]}', "Feature: x has element with unexpected JSON type: Null"),
    refused("nested lists", '{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
    refused("an object", '{"examples": [{"x": {"y": 1}}]}', "Feature: x has element with unexpected JSON type: Object"),
    refused(
        "whole number, then float",
        '{"examples": [{"x": [1, 1.5]}]}',
        "Unexpected element type in feature: x expecting type: int64",
    ),
    refused(
        "float, then string",
        '{"examples": [{"x": [1.5, "a"]}]}',
        "Unexpected element type in feature: x expecting type: float",
    ),
    refused(
        "string, then true",
        '{"examples": [{"x": ["a", true]}]}',
        "Unexpected element type in feature: x expecting type: bytes",
    ),
    refused(
        "beyond int64",
        '{"examples": [{"x": 9223372036854775808}]}',
        "Feature: x has uint64 element. Only int64 is supported.",
    ),
    refused("bad base64", '{"examples": [{"word": {"b64": "?"}}]}', "Unable to base64 decode"),
    ask(
        "regress",
        "no examples",
        "",
        '{"instances": [1]}',
        Error(f"JSON Value: {quoted({'instances': [1]})} {NO_EXAMPLES}"),
    ),
    ask(
        "classify",
        "whole number for a float feature",
        "",
        '{"examples": [{"x": 1}]}',
        ErrorLike("(?s).*Data type: int64 but expected type: float"),
    ),
    ask("classify", "a feature missing", "", '{"examples": [{}]}', ErrorLike("(?s).*Feature: x .* is required")),
    ask(
        "classify",
        "unknown signature",
        "nope",
        '{"examples": [{"x": 1.0}]}',
        Error("No signature was found with the name: nope"),
    ),
    ask(
        "classify",
        "a signature for predict",
        "",
        '{"examples": [{"x": 1.0}]}',
        Error(FOR_PREDICT.format("classification", "classify")),
        target=TOY,
    ),
    ask(
        "regress",
        "a signature for predict",
        "",
        '{"examples": [{"x": 1.0}]}',
        Error(FOR_PREDICT.format("regression", "regress")),
        target=TOY,
    ),
    Case(
        "classify: unknown model",
        "POST",
        "/v1/models/none:classify",
        b'{"examples": [{"x": 1.0}]}',
        404,
        Error("Servable not found for request: Latest(none)"),
    ),
    Case(
        "regress: unknown version",
        "POST",
        f"{EXAMPLES}/versions/7:regress",
        b'{"examples": [{"x": 1.0}]}',
        404,
        Error("Servable not found for request: Specific(examples, 7)"),
    ),
    Case(
        "classify: what is wrong with the body is told before an unknown model",
        "POST",
        "/v1/models/none:classify",
        b'{"examples": [1]}',
        400,
        Error("Example must be JSON object but got JSON Number"),
    ),
]

CASES = [*CLASSIFIED, *REGRESSED, *ERRORS]
