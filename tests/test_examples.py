"""Classify and regress: tf.Example records in JSON and in bytes, and what signatures make of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from app.serving.http.examples_json import read_examples, write_classifications, write_regressions
from app.serving.http.json_text import parse_object
from app.serving.servable import Servable
from app.serving.service import classify, regress
from app.serving.status import Code, ServingError

FEATURES = {"x": tf.io.FixedLenFeature([], tf.float32), "bias": tf.io.FixedLenFeature([], tf.float32, 0.0)}
STRINGS = [tf.TensorSpec([None], tf.string, name="inputs")]
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


class Model(tf.Module):
    """Signatures that classify and regress rightly, and one for each way to do it wrongly."""

    @tf.function(input_signature=STRINGS)
    def both(self, inputs):
        x = tf.io.parse_example(inputs, FEATURES)["x"] + tf.io.parse_example(inputs, FEATURES)["bias"]
        names = tf.tile([["low", "high"]], [tf.shape(x)[0], 1])
        return {"classes": names, "scores": tf.stack([1 - x, x], axis=1)}

    @tf.function(input_signature=STRINGS)
    def classes_only(self, inputs):
        return {"classes": tf.stack([inputs, tf.zeros_like(inputs)], axis=1)}

    @tf.function(input_signature=STRINGS)
    def scores_only(self, inputs):
        return {"scores": self.both(inputs)["scores"]}

    @tf.function(input_signature=STRINGS)
    def value(self, inputs):
        parsed = tf.io.parse_example(inputs, FEATURES)
        return {"outputs": 2 * parsed["x"] + parsed["bias"]}

    @tf.function(input_signature=STRINGS)
    def column(self, inputs):
        return {"outputs": self.value(inputs)["outputs"][:, None]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="records")])
    def other_input(self, records):
        return {"scores": tf.zeros([tf.size(records), 2])}

    @tf.function(input_signature=[*STRINGS, tf.TensorSpec([None], tf.string, name="more")])
    def two_inputs(self, inputs, more):
        return {"scores": tf.zeros([tf.size(inputs) + tf.size(more), 2])}

    @tf.function(input_signature=STRINGS)
    def three_outputs(self, inputs):
        zeros = tf.zeros([tf.size(inputs), 2])
        return {"scores": zeros, "classes": tf.as_string(zeros), "more": zeros}

    @tf.function(input_signature=STRINGS)
    def other_output(self, inputs):
        return {"result": tf.zeros([tf.size(inputs), 2])}

    @tf.function(input_signature=STRINGS)
    def flat_scores(self, inputs):
        return {"scores": tf.zeros([tf.size(inputs)])}

    @tf.function(input_signature=STRINGS)
    def double_scores(self, inputs):
        return {"scores": tf.zeros([tf.size(inputs), 2], tf.float64)}

    @tf.function(input_signature=STRINGS)
    def number_classes(self, inputs):
        return {"classes": tf.zeros([tf.size(inputs), 2])}

    @tf.function(input_signature=STRINGS)
    def one_row(self, inputs):
        return {"scores": tf.zeros([1, 2]) + 0 * tf.cast(tf.size(inputs), tf.float32)}

    @tf.function(input_signature=STRINGS)
    def unequal(self, inputs):
        rows = tf.size(inputs)
        return {"classes": tf.fill([rows, 3], "a"), "scores": tf.zeros([rows, 2])}

    @tf.function(input_signature=STRINGS)
    def wide_value(self, inputs):
        return {"outputs": tf.zeros([tf.size(inputs), 2])}

    @tf.function(input_signature=STRINGS)
    def double_value(self, inputs):
        return {"outputs": tf.zeros([tf.size(inputs)], tf.float64)}

    @tf.function(input_signature=STRINGS)
    def one_value(self, inputs):
        return {"outputs": tf.zeros([1]) + 0 * tf.cast(tf.size(inputs), tf.float32)}


TO_REGRESS = ("value", "column", "wide_value", "double_value", "one_value", "regress_other_output")
TO_CLASSIFY = (
    *("classes_only", "scores_only", "other_input", "two_inputs", "three_outputs", "other_output", "flat_scores"),
    *("double_scores", "number_classes", "one_row", "unequal"),
)


def set_methods(version: Path, methods: Mapping[str, str]) -> None:
    """Say in the file which API each signature is for: tf.saved_model.save writes predict for all of them."""
    file = version / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for name, method in methods.items():
        saved.meta_graphs[0].signature_def[name].method_name = method
    file.write_bytes(saved.SerializeToString())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("examples") / "1"
    module = Model()
    functions = {name: getattr(module, name) for name in (*TO_CLASSIFY, *TO_REGRESS) if hasattr(module, name)}
    extra = {"serving_default": module.both, "native": module.both, "regress_other_output": module.other_output}
    extra |= {"native_value": module.value, "regress_other_input": module.other_input}
    tf.saved_model.save(module, str(path), signatures=functions | extra)
    methods = dict.fromkeys(("serving_default", *TO_CLASSIFY), CLASSIFY)
    methods |= dict.fromkeys((*TO_REGRESS, "regress_other_input"), REGRESS)
    set_methods(path, methods)
    servable = Servable(path)
    yield servable
    servable.close()


def example(**features: float | str | list) -> bytes:
    (serialized,) = read_examples({"examples": [features]})
    return serialized


def parsed(document: str, index: int = 0) -> dict[str, list]:
    """One example of a request's JSON, as protobuf reads it: name -> values."""
    record = tf.train.Example.FromString(read_examples(parse_object(document.encode()))[index])
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value) if feature.WhichOneof("kind") else []
        for name, feature in record.features.feature.items()
    }


def refusal(document: str) -> str:
    with pytest.raises(ServingError) as caught:
        read_examples(parse_object(document.encode("utf-8", "surrogateescape")))
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


# --- the signatures ---


def test_each_example_gets_its_classes_and_scores(model):
    assert classify(model, "", [example(x=0.25), example(x=1.0)]) == [
        [("low", 0.75), ("high", 0.25)],
        [("low", 0.0), ("high", 1.0)],
    ]


def test_a_model_may_give_classes_alone_or_scores_alone(model):
    assert classify(model, "classes_only", [b"\n\x00"]) == [[("\n\x00", None), ("", None)]]
    assert classify(model, "scores_only", [example(x=0.25)]) == [[(None, 0.75), (None, 0.25)]]


def test_a_label_that_is_no_utf8_keeps_its_bytes(model):
    ((first, _),) = classify(model, "classes_only", [b"\xff"])
    assert first[0].encode("utf-8", "surrogateescape") == b"\xff"


@pytest.mark.parametrize("name", ["value", "column", "native_value"])
def test_each_example_gets_its_value(model, name):
    assert regress(model, name, [example(x=0.25), example(x=1.0, bias=0.5)]) == [0.5, 2.5]


def test_a_signature_with_the_right_names_answers_whatever_api_it_was_written_for(model):
    assert model.signatures["native"].method_name == "tensorflow/serving/predict"
    assert classify(model, "native", [example(x=1.0)]) == [[("low", 0.0), ("high", 1.0)]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "No signature was found with the name: nope"),
        (
            "column",
            "Expected classification signature method_name to be tensorflow/serving/classify."
            " Was: tensorflow/serving/regress",
        ),
        ("two_inputs", "Expected one input Tensor."),
        ("three_outputs", "Expected one or two output Tensors, found 3"),
        ("flat_scores", "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ("double_scores", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
        ("number_classes", "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"),
        ("one_row", "Expected scores output batch size of 2. Got: 1"),
        ("unequal", "Tensors class and score should match in dim_size(1). Got 3 vs. 2"),
    ],
)
def test_what_cannot_classify(model, name, message):
    with pytest.raises(ServingError) as caught:
        classify(model, name, [example(x=0.5)] * 2)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "No signature was found with the name: nope"),
        (
            "",
            "Expected regression signature method_name to be tensorflow/serving/regress."
            " Was: tensorflow/serving/classify",
        ),
        (
            "wide_value",
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]",
        ),
        ("double_value", "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
        ("one_value", "Input batch size did not match output batch size: 2 vs. 1"),
    ],
)
def test_what_cannot_regress(model, name, message):
    with pytest.raises(ServingError) as caught:
        regress(model, name, [example(x=0.5)] * 2)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, message)


@pytest.mark.parametrize(
    ("call", "name", "message"),
    [
        (classify, "other_input", "No classification inputs found in SignatureDef: inputs {"),
        (
            classify,
            "other_output",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature'
            " was: inputs {",
        ),
        (regress, "regress_other_input", "No regression inputs found in SignatureDef: inputs {"),
        (regress, "regress_other_output", "No regression outputs found in SignatureDef: inputs {"),
    ],
)
def test_a_signature_with_other_names_is_quoted(model, call, name, message):
    with pytest.raises(ServingError) as caught:
        call(model, name, [example(x=0.5)])
    assert caught.value.message.startswith(message)
    assert f'method_name: "{model.signatures[name].method_name}"' in caught.value.message


@pytest.mark.parametrize(("call", "name"), [(classify, ""), (regress, "value")])
def test_no_example_is_refused(model, call, name):
    with pytest.raises(ServingError, match=r"^Input is empty\.$"):
        call(model, name, [])


def test_the_model_says_what_it_cannot_parse(model):
    with pytest.raises(ServingError, match="Could not parse example input, value: 'garbage'") as caught:
        classify(model, "", [b"garbage"])
    assert caught.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(ServingError, match="Data type: int64 but expected type: float"):
        classify(model, "", [example(x=1)])


# --- JSON to examples ---


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("1", [1]),
        ("[1, -2]", [1, -2]),
        ("true", [1]),
        ("[false, 3]", [0, 3]),
        ("1.5", [1.5]),
        ("[1.0, 2e0]", [1.0, 2.0]),
        ("1e39", [float("inf")]),
        ("[-Infinity]", [float("-inf")]),
        ("99999999999999999999999", [np.float32(1e23)]),
        ('"word"', [b"word"]),
        ('["wörd", {"b64": "AP8="}]', ["wörd".encode(), b"\x00\xff"]),
        ("[]", []),
        ("9223372036854775807", [2**63 - 1]),
    ],
)
def test_values_of_a_feature(value, values):
    assert parsed(f'{{"examples": [{{"a": {value}}}]}}') == {"a": values}


def test_a_feature_without_values_has_no_kind():
    record = tf.train.Example.FromString(read_examples({"examples": [{"a": []}]})[0])
    assert record.features.feature["a"].WhichOneof("kind") is None


def test_an_example_may_be_empty():
    assert read_examples({"examples": [{}, {}]}) == [b"", b""]


def test_the_context_is_part_of_each_example_and_an_examples_own_feature_wins():
    document = '{"context": {"a": [1, 2], "site": "lab"}, "examples": [{"a": 3, "b": 4}, {}]}'
    assert parsed(document, 0) == {"a": [3], "b": [4], "site": [b"lab"]}
    assert parsed(document, 1) == {"a": [1, 2], "site": [b"lab"]}


def test_the_model_too_lets_an_examples_own_feature_win(model):
    request = {"context": {"bias": 0.5, "x": 9.0}, "examples": [{"x": 1.0}, {"x": 2.0, "bias": 0.25}, {}]}
    assert regress(model, "value", read_examples(request)) == [2.5, 4.25, 18.5]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"examples": [{"a": null}]}', "Feature: a has element with unexpected JSON type: Null"),
        ('{"examples": [{"a": [10, null]}]}', "Feature: a has element with unexpected JSON type: Null"),
        ('{"examples": [{"a": [[1], 2]}]}', "Feature: a has element with unexpected JSON type: Array"),
        ('{"examples": [{"a": {"c": 1}}]}', "Feature: a has element with unexpected JSON type: Object"),
        ('{"examples": [{"a": {"b64": 1}}]}', "Feature: a has element with unexpected JSON type: Object"),
        ('{"examples": [{"a": [10, 10.0]}]}', "Unexpected element type in feature: a expecting type: int64"),
        ('{"examples": [{"a": [1.5, 1]}]}', "Unexpected element type in feature: a expecting type: float"),
        ('{"examples": [{"a": [1, "b", null]}]}', "Unexpected element type in feature: a expecting type: int64"),
        ('{"examples": [{"a": ["b", true]}]}', "Unexpected element type in feature: a expecting type: bytes"),
        ('{"examples": [{"a": 9223372036854775808}]}', "Feature: a has uint64 element. Only int64 is supported."),
        ('{"examples": [{"a": {"b64": "!"}}]}', "Unable to base64 decode"),
        ('{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{}, [{}]]}', "Example must be JSON object but got JSON Array"),
        ('{"examples": [{}], "context": true}', "Example must be JSON object but got JSON True"),
        ('{"examples": [{"\udcff": 1}]}', "A feature's name is not UTF-8"),
    ],
)
def test_what_is_no_example(document, message):
    assert refusal(document) == message


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"instances": [1]}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {"a": 1}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
    ],
)
def test_what_is_no_list_of_examples(document, problem):
    assert refusal(json.dumps(document)) == f"JSON Value: {json.dumps(document, indent=4)} {problem}"


# --- answers to JSON ---


def test_classes_are_written_as_pairs():
    text = write_classifications([[("low", 0.1), ("hïgh", 2.0)], [(None, 9e6), ("x", None)], []])
    assert text == '{"results": [[["low", 0.1], ["hïgh", 2.0]], [["", 9e+06], ["x", 0.0]], []]}'


def test_values_are_written_as_numbers():
    assert write_regressions([2.5, 3.0, 123456.703, float("nan")]) == '{"results": [2.5, 3.0, 123456.703, NaN]}'


def test_an_answer_goes_from_json_to_json(model):
    examples = read_examples(parse_object(b'{"examples": [{"x": 0.25}], "signature_name": "value"}'))
    assert write_classifications(classify(model, "", examples)) == '{"results": [[["low", 0.75], ["high", 0.25]]]}'
    assert write_regressions(regress(model, "value", examples)) == '{"results": [0.5]}'
