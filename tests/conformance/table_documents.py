"""The body of a request: how it travels, JSON's dialect, and which of the top-level keys count."""

from __future__ import annotations

import gzip

from conformance.cases import TOY, Case, Error, Json, element, named, predictions, quoted, rows, wrong_type
from conformance.wire import chunked

ECHO = named('{"instances": ["a"]}', "string")
ECHOED = rows("a")
EMPTY = Error("JSON Parse error: The document is empty")
PREDICT = f"{TOY}:predict"
BOTH = {"instances": [1], "inputs": [1]}


def sent(name: str, body: bytes, *headers: tuple[str, str], expected: Json | Error = ECHOED) -> Case:
    return Case(name, "POST", PREDICT, body, 200 if isinstance(expected, Json) else 400, expected, headers)


GZIP = ("Content-Encoding", "gzip")

TRANSPORT = [
    sent("content type of JSON", ECHO, ("Content-Type", "application/json")),
    sent("content type of text", ECHO, ("Content-Type", "text/plain; charset=utf-16")),
    sent("content type of a form", ECHO, ("Content-Type", "application/x-www-form-urlencoded")),
    sent("no content type", ECHO),
    sent("what a client would accept", ECHO, ("Accept", "text/html"), ("Accept-Encoding", "gzip")),
    sent("header names in any case", ECHO, ("CONTENT-TYPE", "x"), ("x-other", "y")),
    sent("chunked", chunked(ECHO), ("Transfer-Encoding", "chunked")),
    sent("a client that waits for 100 Continue", ECHO, ("Expect", "100-continue")),
    sent("gzip", gzip.compress(ECHO), GZIP),
    sent("gzip and chunked", chunked(gzip.compress(ECHO), 11), GZIP, ("Transfer-Encoding", "chunked")),
    sent("gzip in name only", ECHO, GZIP, expected=EMPTY),
    sent("gzip cut short", gzip.compress(ECHO)[:-12], GZIP, expected=EMPTY),
    sent("gzip of nothing", b"", GZIP, expected=EMPTY),
    sent("empty body", b"", expected=EMPTY),
]

DIALECT = predictions(
    [
        ("other keys are ignored", "string", '{"x": {"y": [1]}, "instances": ["a"], "z": null}', ECHOED),
        ("the first of equal keys counts", "string", '{"instances": ["a"], "instances": ["b"]}', ECHOED),
        ("spaces, tabs and line ends", "string", ' \t\r\n{ "instances"\n:\r[\t"a" ] }', ECHOED),
        ("byte order mark", "string", '\ufeff{"instances": ["a"]}', ECHOED),
        ("byte order mark and spaces", "string", '\ufeff \n{"instances": ["a"]}', ECHOED),
        ("escaped key", "string", '{"inst\\u0061nces": ["a"]}', ECHOED),
    ]
)
MORE_TEXT = [
    sent("text after the object", ECHO + b" and more"),
    sent("another object after the object", ECHO + b'{"instances": ["b"]}'),
    sent("a closing bracket too many", ECHO + b"}"),
]

SIGNATURE_NAMES = [
    Case("signature name", "POST", PREDICT, b'{"signature_name": "string", "instances": ["a"]}', 200, ECHOED),
    Case(
        "signature name at the end", "POST", PREDICT, b'{"instances": ["a"], "signature_name": "string"}', 200, ECHOED
    ),
    Case(
        "empty signature name is serving_default",
        "POST",
        PREDICT,
        b'{"signature_name": "", "inputs": []}',
        200,
        Json({"outputs": {"label": [], "confidence": [], "probabilities": [], "classes": []}}),
    ),
    Case(
        "serving_default by name",
        "POST",
        PREDICT,
        b'{"signature_name": "serving_default", "instances": ["bbb"]}',
        200,
        rows({"label": "long", "confidence": 0.75, "probabilities": [0.25, 0.75], "classes": ["short", "long"]}),
    ),
]


def refused(name: str, body: str, text: str) -> Case:
    return Case(name, "POST", PREDICT, body.encode(), 400, Error(text))


def parse_error(name: str, body: str, reason: str, offset: int) -> Case:
    return refused(f"parse error: {name}", body, f"JSON Parse error: {reason} at offset: {offset}")


def not_formatted(name: str, value: object) -> Case:
    document = {"signature_name": value}
    text = f"JSON Value: {quoted(document)} not formatted correctly. 'signature_name' key must be a string value."
    return refused(f"signature name is {name}", quoted(document), text)


ERRORS = [
    parse_error("only spaces", "  ", "The document is empty.", 2),
    parse_error("a misspelt literal", '{"instances": [tru]}', "Invalid value.", 18),
    parse_error("nan in small letters", '{"instances": nan}', "Invalid value.", 15),
    parse_error("comma before a bracket", '{"instances": [1,]}', "Invalid value.", 17),
    parse_error("single quotes", "{'instances': [1]}", "Missing a name for object member.", 1),
    parse_error("key without quotes", "{instances: 1}", "Missing a name for object member.", 1),
    parse_error("comma before a brace", '{"instances": [1], }', "Missing a name for object member.", 19),
    parse_error("half of a surrogate pair", '{"é": "\\ud800"}', "The surrogate pair in string is invalid.", 8),
    parse_error("no colon", '{"instances" [1]}', "Missing a colon after a name of object member.", 13),
    parse_error("no comma", '{"instances": [1 2]}', "Missing a comma or ']' after an array element.", 17),
    parse_error("no comma in an object", '{"a": 1 "b": 2}', "Missing a comma or '}' after an object member.", 8),
    parse_error("bracket left open", '{"instances": [1', "Missing a comma or ']' after an array element.", 16),
    parse_error("string left open", '{"instances": ["a', "Missing a closing quotation mark in string.", 17),
    parse_error("unknown escape", '{"a": "\\x"}', "Invalid escape character in string.", 7),
    parse_error("escape of no hex digits", '{"a": "\\u12g4"}', "Incorrect hex digit after \\u escape in string.", 7),
    parse_error("leading zero", '{"a": [01]}', "Missing a comma or ']' after an array element.", 8),
    parse_error("no digits after the point", '{"a": 1.}', "Miss fraction part in number.", 8),
    parse_error("no digits of an exponent", '{"a": 1e+}', "Miss exponent in number.", 9),
    parse_error("after a byte order mark", "\ufeff{instances: 1}", "Missing a name for object member.", 4),
    refused("a list", "[1]", "JSON Value: [\n    1\n] Is not object"),
    refused("an empty list", "[]", "JSON Value: [] Is not object"),
    refused("a string", '"a"', 'JSON Value: "a" Is not object'),
    refused("a number", "1.5", "JSON Value: 1.5 Is not object"),
    refused("null", "null", "JSON Value: null Is not object"),
    refused("an empty object", "{}", "Missing 'inputs' or 'instances' key"),
    refused("keys in capitals", '{"Instances": ["a"]}', "Missing 'inputs' or 'instances' key"),
    refused(
        "both keys",
        '{"instances": [1], "inputs": [1]}',
        f"JSON Value: {quoted(BOTH)} Not formatted correctly expecting only one of 'inputs' or 'instances'"
        " keys to exist ",
    ),
    refused("no rows", '{"instances": []}', "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
    *(
        refused(
            f"rows are {name}",
            f'{{"instances": {value}}}',
            f"JSON Value: {{\n    \"instances\": {value}\n}} Expecting 'instances' to be an list/array",
        )
        for name, value in (("a number", "1"), ("a string", '"a"'), ("null", "null"), ("an object", "{}"))
    ),
    not_formatted("a number", 1),
    not_formatted("null", None),
    not_formatted("a list", ["serving_default"]),
    refused(
        "unknown signature",
        '{"signature_name": "nope", "instances": ["a"]}',
        'Serving signature name: "nope" not found in signature def',
    ),
    refused(
        "an unknown signature is told before missing keys",
        '{"signature_name": "nope"}',
        'Serving signature name: "nope" not found in signature def',
    ),
    Case(
        "broken JSON is told before an unknown model",
        "POST",
        "/v1/models/none:predict",
        b"{",
        400,
        Error("JSON Parse error: Missing a name for object member. at offset: 1"),
    ),
    Case(
        "an unknown model is told before missing keys",
        "POST",
        "/v1/models/none:predict",
        b"{}",
        404,
        Error("Servable not found for request: Latest(none)"),
    ),
    Case(
        "a float in an error",
        "POST",
        PREDICT,
        b'{"instances": [10000000000.0]}',
        400,
        element(wrong_type("1e+10", "Number", "string")),
    ),
]

CASES = [*TRANSPORT, *DIALECT, *MORE_TEXT, *SIGNATURE_NAMES, *ERRORS]
