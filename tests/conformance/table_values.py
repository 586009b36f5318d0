"""Values: rows and columns of every type and shape, how answers write them, and what is refused."""

from __future__ import annotations

from conformance.cases import (
    Body,
    Error,
    ErrorLike,
    NumberTexts,
    columns,
    element,
    predictions,
    quoted,
    rows,
    wrong_type,
)

SHORT = {"label": "short", "confidence": 0.5, "probabilities": [0.5, 0.5], "classes": ["short", "long"]}
LONG = {"label": "long", "confidence": 0.75, "probabilities": [0.25, 0.75], "classes": ["short", "long"]}
TWO_COLUMNS = columns({"sum": [2.5], "double_b": [4]})

FORMS = predictions(
    [
        ("plain rows", "", '{"instances": ["a", "bbb"]}', rows(SHORT, LONG)),
        ("rows by name", "", '{"instances": [{"text": "a"}, {"text": "bbb"}]}', rows(SHORT, LONG)),
        ("rows of two inputs", "two", '{"instances": [{"a": 0.5, "b": 2}]}', rows({"sum": 2.5, "double_b": 4})),
        (
            "keys in any order",
            "two",
            '{"instances": [{"b": 2, "a": 1}, {"a": 0, "b": 0}]}',
            rows({"sum": 3.0, "double_b": 4}, {"sum": 0.0, "double_b": 0}),
        ),
        ("rows that are lists", "matrix", '{"instances": [[1, 2.5], [3, 4]]}', rows([2.0, 5.0], [6.0, 8.0])),
        ("named rows that are lists", "matrix", '{"instances": [{"x": [1, 2]}]}', rows([2.0, 4.0])),
        ("rows of matrices", "cube", '{"instances": [[[1], [2]], [[3], [4]]]}', rows([[2], [3]], [[4], [5]])),
        ("columns of one input", "", '{"inputs": ["a"]}', columns({key: [value] for key, value in SHORT.items()})),
        ("columns by name", "", '{"inputs": {"text": ["a"]}}', columns({k: [v] for k, v in SHORT.items()})),
        ("columns of two inputs", "two", '{"inputs": {"a": [0.5], "b": [2]}}', TWO_COLUMNS),
        ("more columns than inputs", "two", '{"inputs": {"z": 1, "a": [0.5], "b": [2], "c": {}}}', TWO_COLUMNS),
        ("a matrix as column", "matrix", '{"inputs": [[1, 2]]}', columns([[2.0, 4.0]])),
        ("a cube as column", "cube", '{"inputs": {"x": [[[1], [2]]]}}', columns([[[2], [3]]])),
        ("empty column", "string", '{"inputs": []}', columns([])),
        ("empty columns of two inputs", "two", '{"inputs": {"a": [], "b": []}}', columns({"sum": [], "double_b": []})),
        ("empty dimension", "cube", '{"inputs": [[[]]]}', columns([[[]]])),
        ("a bare value", "scalar", '{"inputs": "ab"}', columns({"length": 2, "text": "AB"})),
        ("a bare value by name", "scalar", '{"inputs": {"text": "ab"}}', columns({"length": 2, "text": "AB"})),
        ("bare bytes", "scalar", '{"inputs": {"b64": "YWI="}}', columns({"length": 2, "text": "AB"})),
        ("scalar output", "total", '{"inputs": [1, 2]}', columns(3.0)),
        ("outputs of unequal length", "uneven", '{"inputs": [1, 2]}', columns({"all": [1.0, 2.0], "less": [2.0]})),
    ]
)


def values(name: str, dtype: str, texts: str, found: list) -> list:
    """The same values in rows and in columns."""
    return predictions(
        [
            (f"{name} in rows", dtype, f'{{"instances": [{texts}]}}', rows(*found)),
            (f"{name} in columns", dtype, f'{{"inputs": [{texts}]}}', columns(found)),
        ]
    )


TYPES = [
    *values("bool", "bool", "true, false", [True, False]),
    *values("int8", "int8", "-128, 127", [-128, 127]),
    *values("int16", "int16", "-32768, 32767", [-32768, 32767]),
    *values("int32", "int32", "-2147483648, 2147483647, -0", [-(2**31), 2**31 - 1, 0]),
    *values("int64", "int64", "-9223372036854775808, 9223372036854775807", [-(2**63), 2**63 - 1]),
    *values("uint8", "uint8", "0, 255", [0, 255]),
    *values("uint32", "uint32", "0, 4294967295", [0, 2**32 - 1]),
    *values("uint64", "uint64", "0, 18446744073709551615", [0, 2**64 - 1]),
    *values("float", "float32", "1, 2.5, -1e3, 1E-2", [1.0, 2.5, -1000.0, 0.01]),
    *values("double", "float64", "1, 0.1, 1e39", [1.0, 0.1, 1e39]),
    *values("string", "string", '"a", "", "b"', ["a", "", "b"]),
    *values("float too large", "float32", "1e39, -1e39", [float("inf"), float("-inf")]),
    *values("infinite float", "float32", "Infinity, -Infinity, Inf", [float("inf"), float("-inf"), float("inf")]),
    *values("float that is no number", "float32", "NaN", [float("nan")]),
    *values("whole number beyond 64 bits as float", "float64", "18446744073709551616", [2.0**64]),
]

STRINGS = predictions(
    [
        ("non-ASCII text", "string", '{"instances": ["żółw 日本 😀"]}', rows("żółw 日本 😀")),
        ("escapes", "string", r'{"instances": ["\" \\ \/ \b\f\n\r\t"]}', rows('" \\ / \b\f\n\r\t')),
        ("escaped letters", "string", r'{"instances": ["\u017c \ud83d\ude00"]}', rows("ż 😀")),
        ("zero byte", "string", r'{"instances": ["a\u0000b"]}', rows("a\0b")),
        (
            "bytes without an UTF-8 form",
            "string",
            b'{"instances": ["\xff\xfe"]}',
            Body(b'{"predictions": ["\xff\xfe"]}'),
        ),
        ("base64", "string", '{"instances": [{"b64": "YWI="}, {"b64": ""}]}', rows("ab", "")),
        ("base64 without padding", "string", '{"instances": [{"b64": "YWI"}, {"b64": "YQ"}]}', rows("ab", "a")),
        ("base64 with white space", "string", r'{"instances": [{"b64": " Y\nWI= "}]}', rows("ab")),
        ("base64 by name", "string", '{"instances": [{"x": {"b64": "YWI="}}]}', rows("ab")),
        ("base64 in a column", "string", '{"inputs": {"x": [{"b64": "YWI="}, "c"]}}', columns(["ab", "c"])),
        ("base64 among strings", "string", '{"instances": ["c", {"b64": "YWI="}]}', rows("c", "ab")),
        ("bytes output", "as_bytes", '{"instances": ["ab", ""]}', rows({"b64": "YWI="}, {"b64": ""})),
        ("bytes that are no text", "as_bytes", '{"instances": [{"b64": "/w=="}]}', rows({"b64": "/w=="})),
        ("bytes output in columns", "as_bytes", '{"inputs": ["ab"]}', columns([{"b64": "YWI="}])),
        (
            "bytes output among others",
            "both_ways",
            '{"instances": [{"image_bytes": {"b64": "AP8="}}]}',
            rows({"image_bytes": {"b64": "AP8="}, "size": 2}),
        ),
        ("the name of bytes on numbers", "number_bytes", '{"instances": [1.5]}', rows(1.5)),
    ]
)

FLOAT_TEXTS = predictions(
    [
        (
            "texts of floats",
            "float32",
            '{"inputs": [2.5, 3, 9000000, 123456.703, 0.1, 1e-5, 16777216, 3.4028235e38, 1000000, 999999]}',
            NumberTexts(
                {
                    "outputs": [
                        *("2.5", "3.0", "9e+06", "123456.703", "0.1", "1e-05", "16777216.0", "3.40282347e+38"),
                        *("1e+06", "999999.0"),
                    ]
                }
            ),
        ),
        (
            "texts of floats in rows",
            "float32",
            '{"instances": [0.333333333333, -4, 0, -0.0]}',
            NumberTexts({"predictions": ["0.333333343", "-4.0", "0.0", "-0.0"]}),
        ),
        (
            "texts of what is not finite",
            "float32",
            '{"instances": [NaN, Infinity, -Infinity]}',
            NumberTexts({"predictions": ["NaN", "Infinity", "-Infinity"]}),
        ),
        (
            "texts of doubles",
            "float64",
            '{"inputs": [0.1, 2.5, 9000000, 0.3333333333333333, 1e300]}',
            NumberTexts({"outputs": ["0.1", "2.5", "9e+06", "0.33333333333333331", "1e+300"]}),
        ),
        ("texts of whole numbers", "int64", '{"inputs": [3, -4]}', NumberTexts({"outputs": ["3", "-4"]})),
    ]
)

PLAIN_LIST = (
    "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
)
PLAIN_VALUE = (
    "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
)
NO_BASE64 = "Unable to base64 decode"


def of_other_types() -> list:
    """A value of each JSON type where another is declared: told alike in rows and columns."""
    lines = []
    for dtype, expected, value, kind in (
        ("string", "string", "1", "Number"),
        ("string", "string", "1.5", "Number"),
        ("string", "string", "null", "Null"),
        ("string", "string", "true", "True"),
        ("string", "string", "false", "False"),
        ("float32", "float", '"1"', "String"),
        ("float32", "float", "true", "True"),
        ("float32", "float", "null", "Null"),
        ("float64", "double", '"x"', "String"),
        ("bool", "bool", "1", "Number"),
        ("bool", "bool", '"true"', "String"),
        ("int8", "int8", '"1"', "String"),
        ("int16", "int16", "true", "True"),
        ("int32", "int32", "2147483648", "Number"),
        ("int32", "int32", "1.0", "Number"),
        ("int64", "int64", "1.0", "Number"),
        ("int64", "int64", "9223372036854775808", "Number"),
        ("uint8", "uint8", "null", "Null"),
        ("uint32", "uint32", "-1", "Number"),
        ("uint32", "uint32", "4294967296", "Number"),
        ("uint64", "uint64", "-1", "Number"),
    ):
        text = wrong_type(value, kind, expected)
        lines.append((f"{value} for {expected} in rows", dtype, f'{{"instances": [{value}]}}', element(text)))
        lines.append((f"{value} for {expected} in columns", dtype, f'{{"inputs": [{value}]}}', Error(text)))
    return predictions(lines)


OBJECT = '{\n    "a": 1\n}'

ERRORS = predictions(
    [
        ("the second row", "string", '{"instances": ["a", 2]}', element(wrong_type("2", "Number", "string"), 1)),
        (
            "a value of a named row",
            "two",
            '{"instances": [{"a": 1, "b": 1}, {"a": "x", "b": 1}]}',
            Error(
                "Failed to process element: 1 key: a of 'instances' list. Error: INVALID_ARGUMENT: "
                + wrong_type('"x"', "String", "float")
            ),
        ),
        (
            "an object for a number",
            "float32",
            '{"inputs": {"x": [{"a": 1}]}}',
            Error(wrong_type(OBJECT, "Object", "float")),
        ),
        ("base64 of other letters", "string", '{"instances": [{"b64": "?"}]}', element(NO_BASE64)),
        ("URL-safe base64", "string", '{"instances": [{"b64": "_-8="}]}', element(NO_BASE64)),
        ("one letter of base64", "string", '{"inputs": {"x": [{"b64": "Y"}]}}', Error(NO_BASE64)),
        ("too much padding", "string", '{"inputs": {"x": [{"b64": "YWI=="}]}}', Error(NO_BASE64)),
        (
            "base64 that is no string",
            "string",
            '{"inputs": {"x": [{"b64": 1}]}}',
            Error(f"JSON Value: {quoted({'b64': 1})} not formatted correctly for base64 data"),
        ),
        (
            "base64 with company",
            "string",
            '{"inputs": {"x": [{"b64": "YQ==", "more": 1}]}}',
            Error(f"JSON Value: {quoted({'b64': 'YQ==', 'more': 1})} not formatted correctly for base64 data"),
        ),
        (
            "unknown key in a row",
            "string",
            '{"instances": [{"txt": "a"}]}',
            Error(
                "Failed to process element: 0 key: txt of 'instances' list."
                " Error: INVALID_ARGUMENT: JSON object: does not have named input: txt"
            ),
        ),
        (
            "missing key in a row",
            "two",
            '{"instances": [{"a": 1}]}',
            Error(
                f"Failed to process element: 0 of 'instances' list. JSON object: {OBJECT} keys must be equal to: a,b"
            ),
        ),
        (
            "empty object as row",
            "two",
            '{"instances": [{}]}',
            Error("Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: a,b"),
        ),
        ("missing column", "", '{"inputs": {"txt": ["a"]}}', Error("Missing named input: text in 'inputs' object.")),
        ("missing second column", "two", '{"inputs": {"a": [1]}}', Error("Missing named input: b in 'inputs' object.")),
        ("empty object as columns", "two", '{"inputs": {}}', Error("Missing named input: a in 'inputs' object.")),
        ("plain list for two inputs", "two", '{"instances": [1]}', Error(PLAIN_LIST)),
        ("plain list as columns of two inputs", "two", '{"inputs": [1]}', Error(PLAIN_VALUE)),
        ("plain value as columns of two inputs", "two", '{"inputs": 1}', Error(PLAIN_VALUE)),
        ("base64 as columns of two inputs", "two", '{"inputs": {"b64": "YQ=="}}', Error(PLAIN_VALUE)),
        (
            "a value among objects",
            "string",
            '{"instances": [{"x": "a"}, "b"]}',
            Error("Expecting object but got list at item 1 of input list"),
        ),
        (
            "an object among values",
            "string",
            '{"instances": ["b", "c", {"x": "a"}]}',
            Error("Expecting value/list but got object at item 2 of input list"),
        ),
        (
            "a shorter row",
            "matrix",
            '{"instances": [[1, 2], [1]]}',
            element("Expecting tensor size: 2 but got: 1", 1),
        ),
        ("a row of another rank", "float32", '{"instances": [1, [1]]}', element("Expecting shape [] but got: [1]", 1)),
        (
            "a row of another shape",
            "cube",
            '{"instances": [[[1, 2]], [[1], [2]]]}',
            element("Expecting shape [1,2] but got: [2,1]", 1),
        ),
        (
            "a shorter list in a column",
            "matrix",
            '{"inputs": [[1, 2], [1]]}',
            Error("Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ),
        (
            "a shorter list in a row",
            "cube",
            '{"instances": [[[1, 2], [3]]]}',
            element("Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ),
        (
            "a value among lists",
            "matrix",
            '{"inputs": [[1, 2], 1]}',
            Error("JSON Value: 1 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ),
        (
            "a list among values",
            "matrix",
            '{"inputs": [1, [1]]}',
            Error("Encountered list at unexpected level: 1 expected < 1"),
        ),
        ("scalar output in rows", "total", '{"instances": [1, 2]}', Error("Tensor name: y has no shape information ")),
        (
            "outputs of unequal length in rows",
            "uneven",
            '{"instances": [1, 2]}',
            ErrorLike("Tensor name: (less|all) has inconsistent batch size: [12] expecting: [12]$"),
        ),
        (
            "bfloat16 in rows",
            "bfloat16",
            '{"instances": [1]}',
            Error("Failed to write JSON value for tensor type: bfloat16"),
        ),
        ("half in columns", "half", '{"inputs": [1]}', Error("Failed to write JSON value for tensor type: half")),
    ]
)

CASES = [*FORMS, *TYPES, *STRINGS, *FLOAT_TEXTS, *of_other_types(), *ERRORS]
