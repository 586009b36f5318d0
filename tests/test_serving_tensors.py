"""JSON to arrays and back, without a server or TensorFlow."""

import json
import tracemalloc

import numpy as np
import pytest

from app.serving.http.float_text import write_floats
from app.serving.http.json_text import parse_object
from app.serving.http.quoting import pretty
from app.serving.http.tensors import read_inputs, write_outputs
from app.serving.signatures import TensorInfo
from app.serving.status import Code, ServingError


def one_input(dtype: str, name: str = "x") -> dict[str, TensorInfo]:
    return {name: TensorInfo(f"{name}:0", dtype, None)}


def offset_and_reason(body: str) -> tuple[str, int]:
    with pytest.raises(ServingError) as caught:
        parse_object(body.encode())
    reason, _, offset = caught.value.message.removeprefix("JSON Parse error: ").partition(" at offset: ")
    return reason, int(offset)


@pytest.mark.parametrize(
    ("body", "reason", "offset"),
    [
        (" \n\t", "The document is empty.", 3),
        ("{", "Missing a name for object member.", 1),
        ('{"a"', "Missing a colon after a name of object member.", 4),
        ('{"a" 1}', "Missing a colon after a name of object member.", 5),
        ('{"a": 1 "b": 2}', "Missing a comma or '}' after an object member.", 8),
        ('{"a": [1 2]}', "Missing a comma or ']' after an array element.", 9),
        ('{"a": [{"]": 1} 2]}', "Missing a comma or ']' after an array element.", 16),
        ('{"a": [01]}', "Missing a comma or ']' after an array element.", 8),
        ('{"a": 1, }', "Missing a name for object member.", 9),
        ('{"a": [1, ]}', "Invalid value.", 10),
        ('{"a": }', "Invalid value.", 6),
        ('{"a": nul}', "Invalid value.", 9),
        ('{"a": -x}', "Invalid value.", 7),
        ('{"a": +1}', "Invalid value.", 6),
        ('{"a": 1.}', "Miss fraction part in number.", 8),
        ('{"a": 1e+}', "Miss exponent in number.", 9),
        ('{"a": "b', "Missing a closing quotation mark in string.", 8),
        ('{"a": "\\x"}', "Invalid escape character in string.", 7),
        ('{"a": "\\u12g4"}', "Incorrect hex digit after \\u escape in string.", 7),
        ('{"a": "b\n"}', "Invalid encoding in string.", 8),
        ('{"a": "\\udc00"}', "The surrogate pair in string is invalid.", 7),
        ('{"日": nul}', "Invalid value.", 11),
    ],
)
def test_broken_json_gets_rapidjsons_reason_and_byte_offset(body, reason, offset):
    assert offset_and_reason(body) == (reason, offset)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        ('{"a": 1, "a": 2, "b": 3}', {"a": 1, "b": 3}),
        ('{"a": 1} {"b": 2', {"a": 1}),
        ('\ufeff{"a": 1}', {"a": 1}),
        (
            '{"a": [Inf, -Infinity, -Inf], "Inf": "Inf -NaN"}',
            {"a": [np.inf, -np.inf, -np.inf], "Inf": "Inf -NaN"},
        ),
        ('{"a": "\\\\ud800"}', {"a": "\\ud800"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": 18446744073709551615}', {"a": 2**64 - 1}),
        ('{"a": 18446744073709551616}', {"a": 2.0**64}),
    ],
)
def test_rapidjsons_dialect_is_read(body, value):
    assert parse_object(body.encode()) == value


def test_numbers_too_long_for_pythons_int_are_floats():
    assert parse_object(b'{"a": ' + b"9" * 5000 + b"}") == {"a": float("inf")}


def test_values_are_quoted_with_four_spaces():
    assert pretty({"a": [1, "é"], "b": {}}) == '{\n    "a": [\n        1,\n        "é"\n    ],\n    "b": {}\n}'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.0"),
        (1e10, "1e+10"),  # alone: as answers write float32
        (2.0**64, "1.84467441e+19"),
        (1e39, "1e+39"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ([1e10], "[\n    10000000000.0\n]"),  # inside something: the shortest digits, RapidJSON's places
        ([-1.5e30, 1e-7, 1.5e-7], "[\n    -1.5e30,\n    1e-7,\n    1.5e-7\n]"),
        ([1e20, 1e21], "[\n    100000000000000000000.0,\n    1e21\n]"),
        ([0.001234, 12.5, -0.0, 0.0], "[\n    0.001234,\n    12.5,\n    -0.0,\n    0.0\n]"),
        ({"a": [float("nan"), 1]}, '{\n    "a": [\n        '),  # where RapidJSON's writer gives up
        ("\x1f\\u001f/é\n", '"\\u001F\\\\u001f/é\\n"'),
        ([True, None, {}, []], "[\n    true,\n    null,\n    {},\n    []\n]"),
    ],
)
def test_values_are_quoted_as_rapidjson_writes_them(value, text):
    assert pretty(value) == text


@pytest.mark.parametrize("value", [1, "a", [1.5, {"b": ["é", "\t"]}], {"a": {"b": [[], {}, [0.1]]}}])
def test_quoted_values_are_json(value):
    assert json.loads(pretty(value)) == value


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("DT_FLOAT", [1, 2.5, 1e39], np.array([1, 2.5, np.inf], np.float32)),
        ("DT_DOUBLE", [1, 0.1], np.array([1, 0.1])),
        ("DT_INT8", [1, 300], np.array([1, 44], np.int8)),
        ("DT_INT16", [-3], np.array([-3], np.int16)),
        ("DT_INT32", [2**31 - 1], np.array([2**31 - 1], np.int32)),
        ("DT_INT64", [-(2**63)], np.array([-(2**63)], np.int64)),
        ("DT_UINT8", [255], np.array([255], np.uint8)),
        ("DT_UINT32", [2**32 - 1], np.array([2**32 - 1], np.uint32)),
        ("DT_UINT64", [2**64 - 1], np.array([2**64 - 1], np.uint64)),
        ("DT_BOOL", [True, False], np.array([True, False])),
        ("DT_STRING", ["a\0", {"b64": "/w"}], np.array([b"a\0", b"\xff"], object)),
    ],
)
def test_each_type_is_read_from_rows_and_columns_alike(dtype, values, expected):
    for document, in_rows in (({"instances": values}, True), ({"inputs": values}, False)):
        tensors, rows = read_inputs(document, one_input(dtype))
        assert rows is in_rows
        assert tensors["x"].dtype == expected.dtype
        np.testing.assert_array_equal(tensors["x"], expected)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("DT_INT32", 2**31),
        ("DT_INT64", 2**63),
        ("DT_UINT32", -1),
        ("DT_UINT64", -1),
        ("DT_INT64", 1.0),
        ("DT_INT64", True),
        ("DT_FLOAT", False),
        ("DT_FLOAT", {"b64": "YQ=="}),
        ("DT_BOOL", 0),
        ("DT_STRING", 1.5),
    ],
)
def test_values_of_another_type_are_refused(dtype, value):
    with pytest.raises(ServingError, match="is not of expected type"):
        read_inputs({"inputs": [value]}, one_input(dtype))


def test_a_type_json_cannot_give_is_unimplemented_in_columns_and_invalid_in_rows():
    with pytest.raises(ServingError, match=r"^Conversion of JSON Value: 1 to type: complex64$") as caught:
        read_inputs({"inputs": [1]}, one_input("DT_COMPLEX64"))
    assert (caught.value.code, caught.value.http_status) == (Code.UNIMPLEMENTED, 501)
    for instances in ([1], [[]]):
        with pytest.raises(ServingError, match=r"Error: UNIMPLEMENTED: Conversion") as caught:
            read_inputs({"instances": instances}, one_input("DT_COMPLEX64"))
        assert caught.value.http_status == 400


@pytest.mark.parametrize(
    ("value", "shape"),
    [("a", ()), ([], (0,)), ([[]], (1, 0)), ([["a", "b"]], (1, 2)), ([[["a"]], [["b"]]], (2, 1, 1))],
)
def test_columns_have_the_shape_of_their_nesting(value, shape):
    tensors, _ = read_inputs({"inputs": value}, one_input("DT_STRING"))
    assert tensors["x"].shape == shape


def test_rows_are_stacked_in_a_new_first_dimension():
    tensors, _ = read_inputs({"instances": [[[1, 2]], [[3, 4]], [[5, 6]]]}, one_input("DT_INT64"))
    np.testing.assert_array_equal(tensors["x"], [[[1, 2]], [[3, 4]], [[5, 6]]])


@pytest.mark.parametrize(
    ("text", "decoded"),
    [("YWI=", b"ab"), ("YWI", b"ab"), ("YW I=\n", b"ab"), ("", b""), ("+/8=", b"\xfb\xff"), ("YQ..", b"a")],
)
def test_base64_is_decoded_with_or_without_padding(text, decoded):
    tensors, _ = read_inputs({"inputs": {"b64": text}}, one_input("DT_STRING"))
    assert tensors["x"].item() == decoded


@pytest.mark.parametrize("text", ["Y", "YWI==", "YWJj=", "-_8=", "é", "=", "YW=I", "YWI\xa0"])
def test_bad_base64_is_refused(text):
    with pytest.raises(ServingError, match=r"^Unable to base64 decode$"):
        read_inputs({"inputs": {"b64": text}}, one_input("DT_STRING"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5, "2.5"),
        (3, "3.0"),
        (-4, "-4.0"),
        (0, "0.0"),
        (9e6, "9e+06"),
        (3e-5, "3e-05"),
        (123456.703, "123456.703"),
        (16777216, "16777216.0"),
        (0.1, "0.1"),
        (1 / 3, "0.333333343"),
        (3.4028235e38, "3.40282347e+38"),
        (np.nan, "NaN"),
        (np.inf, "Infinity"),
        (-np.inf, "-Infinity"),
    ],
)
def test_float32_is_written_in_the_shortest_of_two_forms(value, text):
    assert write_floats(np.array([value], np.float32)) == [text]


@pytest.mark.parametrize(("value", "text"), [(0.1, "0.1"), (1 / 3, "0.33333333333333331"), (1e22, "1e+22")])
def test_float64_is_written_with_17_digits_where_6_do_not_do(value, text):
    assert write_floats(np.array([value])) == [text]


def test_every_float32_reads_back_as_itself():
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = bits[np.isfinite(bits)]
    assert np.array_equal(np.array(write_floats(values), np.float64).astype(np.float32), values)


def test_one_output_stands_without_its_name_and_several_with_it():
    outputs = {"a": np.array([1, 2], np.int64), "b": np.array([[True], [False]])}
    assert json.loads(write_outputs({"a": outputs["a"]}, rows=True)) == {"predictions": [1, 2]}
    assert json.loads(write_outputs({"a": outputs["a"]}, rows=False)) == {"outputs": [1, 2]}
    rows = {"predictions": [{"a": 1, "b": [True]}, {"a": 2, "b": [False]}]}
    assert json.loads(write_outputs(outputs, rows=True)) == rows
    assert json.loads(write_outputs(outputs, rows=False)) == {"outputs": {"a": [1, 2], "b": [[True], [False]]}}


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 3, 0), (2, 3, 4)])
def test_any_shape_is_written_as_nested_lists(shape):
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    assert json.loads(write_outputs({"y": array}, rows=False)) == {"outputs": array.tolist()}
    assert json.loads(write_outputs({"y": array}, rows=True)) == {"predictions": array.tolist()}


def test_strings_are_escaped_and_bytes_are_base64():
    array = np.array([b'"\n\\', "é".encode()], object)
    assert write_outputs({"y": array}, rows=True) == '{"predictions": ["\\"\\n\\\\", "é"]}'
    assert write_outputs({"y_bytes": array[:1]}, rows=True) == '{"predictions": [{"b64": "Igpc"}]}'


def test_a_deep_request_is_not_quoted_at_a_thousand_times_its_length():
    value = [1] * 20_000
    for _ in range(450):
        value = [value]
    quoted = pretty(value)
    assert len(quoted) == 64 * 1024 + 3
    assert quoted.endswith("...")


def test_a_long_string_before_a_mistake_is_read_without_a_stack_of_its_length():
    tracemalloc.start()
    body = b'{"instances": ["' + b"x" * 2_000_000 + b'" 1]}'
    with pytest.raises(ServingError, match="Missing a comma or ']' after an array element"):
        parse_object(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * len(body)
