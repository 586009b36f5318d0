"""TensorFlow's messages to arrays and back, with TensorFlow's own reader as the judge."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from app.serving.messages import TensorMessageError, read_tensor, signature_message, write_tensor

NUMERIC = [
    *("FLOAT", "DOUBLE", "HALF", "BFLOAT16", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    *("BOOL", "COMPLEX64", "COMPLEX128"),
]
QUANTIZED = ["QINT8", "QUINT8", "QINT16", "QUINT16", "QINT32"]
SMALL = ["INT4", "UINT4", "FLOAT8_E5M2", "FLOAT8_E4M3FN"]


def message(dtype: str, *shape: int, **values) -> tensor_pb2.TensorProto:
    found = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(f"DT_{dtype}"), **values)
    for size in shape:
        found.tensor_shape.dim.add(size=size)
    return found


def numpy_type(dtype: str) -> np.dtype:
    return np.dtype(tf.dtypes.as_dtype(types_pb2.DataType.Value(f"DT_{dtype}")).as_numpy_dtype)


def written(array: np.ndarray, dtype: str) -> tensor_pb2.TensorProto:
    found = tensor_pb2.TensorProto()
    write_tensor(array, f"DT_{dtype}", found)
    return found


def as_tensorflow_reads(found: tensor_pb2.TensorProto) -> tf.Tensor:
    return tf.io.parse_tensor(found.SerializeToString(), tf.dtypes.as_dtype(found.dtype))


@pytest.mark.parametrize("dtype", [*NUMERIC, *SMALL])
def test_a_written_tensor_is_the_same_to_us_and_to_tensorflow(dtype):
    array = np.array([[0, 1, 2], [3, 5, 7]]).astype(numpy_type(dtype))
    found = written(array, dtype)
    assert read_tensor(found).dtype == array.dtype
    np.testing.assert_array_equal(read_tensor(found), array)
    np.testing.assert_array_equal(as_tensorflow_reads(found).numpy(), array)


@pytest.mark.parametrize("dtype", NUMERIC)
def test_numbers_are_written_into_the_field_of_their_dtype(dtype):
    assert not written(np.ones(2, numpy_type(dtype)), dtype).tensor_content


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_quantized_numbers(dtype):
    # A session gives them as plain integers, and takes numpy's records of one integer.
    plain = numpy_type(dtype)[0]
    found = written(np.array([1, 2], plain), dtype)
    assert list(found.int_val) == [1, 2]
    assert read_tensor(found).dtype == numpy_type(dtype)
    assert read_tensor(found).view(plain).tolist() == [1, 2]


@pytest.mark.parametrize("dtype", [*NUMERIC, *SMALL])
def test_content_as_tensorflow_for_python_packs_it(dtype):
    array = np.array([[0, 1], [2, 3]]).astype(numpy_type(dtype))
    found = message(dtype, 2, 2, tensor_content=array.tobytes())
    np.testing.assert_array_equal(read_tensor(found), array)
    np.testing.assert_array_equal(read_tensor(tf.make_tensor_proto(array)), array)


def test_extremes_survive():
    for array, dtype in (
        (np.array([np.inf, -np.inf, np.nan, 1e-45], np.float32), "FLOAT"),
        (np.array([-(2**63), 2**63 - 1], np.int64), "INT64"),
        (np.array([2**64 - 1], np.uint64), "UINT64"),
        (np.array([-128, 127], np.int8), "INT8"),
        (np.array([65504, 6e-8], np.float16), "HALF"),
        (np.array([1 + 2j, -1j], np.complex64), "COMPLEX64"),
    ):
        np.testing.assert_array_equal(read_tensor(written(array, dtype)), array)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1, 1), (2, 3)])
def test_every_shape_survives(shape):
    for array, dtype in ((np.ones(shape, np.float32), "FLOAT"), (np.full(shape, b"x", object), "STRING")):
        found = read_tensor(written(array, dtype))
        assert found.shape == shape
        assert found.tolist() == array.tolist()


def test_strings_are_bytes():
    array = np.array([[b"", b"\xff\x00"], ["wörd".encode(), b"x" * 1000]], object)
    found = written(array, "STRING")
    assert list(found.string_val) == array.ravel().tolist()
    assert read_tensor(found).tolist() == array.tolist()


def test_strings_as_content():
    texts = [b"", b"ab", b"x" * 300]
    found = message("STRING", 3, tensor_content=b"\x00\x02\xac\x02" + b"".join(texts))
    assert as_tensorflow_reads(found).numpy().tolist() == texts
    assert read_tensor(found).tolist() == texts


@pytest.mark.parametrize(
    ("found", "values"),
    [
        (message("FLOAT", 4, float_val=[1, 2]), [1, 2, 2, 2]),
        (message("FLOAT", 2), [0, 0]),
        (message("FLOAT", 2, float_val=[1, 2, 3]), [1, 2]),
        (message("BOOL", 3, bool_val=[True]), [True] * 3),
        (message("STRING", 3, string_val=[b"a", b"b"]), [b"a", b"b", b"b"]),
        (message("STRING", 2), [b"", b""]),
        (message("COMPLEX64", 2, scomplex_val=[1, 2]), [1 + 2j, 1 + 2j]),
        (message("HALF", 2, half_val=[15360]), [1, 1]),
        (message("UINT8", 2, int_val=[255, 0]), [255, 0]),
        (message("INT8", 0, int_val=[1]), []),
    ],
)
def test_the_last_value_fills_up_and_what_is_too_much_is_left_out(found, values):
    assert read_tensor(found).tolist() == values
    assert as_tensorflow_reads(found).numpy().tolist() == values


@pytest.mark.parametrize(
    "found",
    [
        message("FLOAT", 2, tensor_content=b"1234567"),
        message("FLOAT", -1),
        tensor_pb2.TensorProto(dtype=1, tensor_shape=tensor_shape_pb2.TensorShapeProto(unknown_rank=True)),
        message("INVALID", 1),
        message("RESOURCE", 1),
        message("VARIANT", 1),
        tensor_pb2.TensorProto(dtype=999),
        message("STRING", 1, tensor_content=b"\x05ab"),
        message("STRING", 2, tensor_content=b"\x01a"),
        message("STRING", 1, tensor_content=b"\xff"),
        message("STRING", 1, tensor_content=b"\xff" * 11),
        message("FLOAT", *[1] * 100, float_val=[1]),
    ],
)
def test_what_describes_no_tensor(found):
    with pytest.raises(TensorMessageError):
        read_tensor(found)


@pytest.mark.parametrize(
    "found",
    [
        message("FLOAT", 2**40, float_val=[1]),
        message("FLOAT", 2**62, 2**62),
        message("STRING", 2**30, string_val=[b"x"]),
        message("STRING", 1000, string_val=[b"x" * 1_000_000]),
        message("INT4", 2**40, int_val=[1]),
    ],
)
def test_a_few_bytes_cannot_ask_for_a_tensor_that_fills_the_memory(found):
    with pytest.raises(TensorMessageError):
        read_tensor(found)


tensors = st.builds(
    lambda dtype, shape, content, numbers, texts: tensor_pb2.TensorProto(
        dtype=dtype,
        tensor_shape=tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
        ),
        tensor_content=content,
        int_val=numbers,
        float_val=numbers,
        half_val=numbers,
        scomplex_val=numbers,
        string_val=texts,
    ),
    st.integers(-1, 40) | st.integers(101, 140),
    st.lists(st.integers(-1, 4) | st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.binary(max_size=16) | st.just(b""),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=8),
    st.lists(st.binary(max_size=8), max_size=4),
)


@settings(max_examples=500, deadline=None)
@given(tensors)
def test_any_message_is_a_tensor_of_its_shape_or_refused(found):
    try:
        array = read_tensor(found)
    except TensorMessageError:
        return
    assert array.shape == tuple(dim.size for dim in found.tensor_shape.dim)


def test_a_signature_survives_its_json_form():
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    signature.inputs["text"].name, signature.inputs["text"].dtype = "text:0", types_pb2.DT_STRING
    signature.inputs["text"].tensor_shape.dim.add(size=-1)
    signature.outputs["any"].tensor_shape.unknown_rank = True
    as_json = MessageToDict(signature, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
    assert signature_message(as_json) == signature
