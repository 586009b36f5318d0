"""Arrays and signatures as TensorFlow's protobuf messages, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import ParseDict
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

# A message may give one value for a tensor of any size. No more than this is filled up for a few bytes of a client.
MAX_FILLED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class _Form:
    """How a dtype travels: in which field of TensorProto, as numbers of which type (`wire`), `numbers` a value."""

    field: str
    array: np.dtype[Any]
    wire: np.dtype[Any]
    numbers: int = 1


def _forms() -> dict[int, _Form]:
    forms = {
        name: _Form(field, np.dtype(kind), np.dtype(kind))
        for names, field, kinds in (
            ("FLOAT", "float_val", "f4"),
            ("DOUBLE", "double_val", "f8"),
            ("INT64", "int64_val", "i8"),
            ("UINT32", "uint32_val", "u4"),
            ("UINT64", "uint64_val", "u8"),
            ("INT32 INT16 INT8 UINT8 UINT16", "int_val", "i4 i2 i1 u1 u2"),
        )
        for name, kind in zip(names.split(), kinds.split(), strict=True)
    }
    forms["BOOL"] = _Form("bool_val", np.dtype(bool), np.dtype("u1"))
    forms["COMPLEX64"] = _Form("scomplex_val", np.dtype("c8"), np.dtype("f4"), 2)
    forms["COMPLEX128"] = _Form("dcomplex_val", np.dtype("c16"), np.dtype("f8"), 2)
    for names, field, wires in (
        ("HALF BFLOAT16", "half_val", "u2 u2"),  # their bits
        ("QINT8 QUINT8 QINT16 QUINT16 QINT32", "int_val", "i1 u1 i2 u2 i4"),
    ):
        for name, wire in zip(names.split(), wires.split(), strict=True):
            array = tf.dtypes.as_dtype(types_pb2.DataType.Value(f"DT_{name}")).as_numpy_dtype
            forms[name] = _Form(field, np.dtype(array), np.dtype(wire))
    return {types_pb2.DataType.Value(f"DT_{name}"): form for name, form in forms.items()}


_FORMS = _forms()


class TensorMessageError(ValueError):
    """A TensorProto that describes no tensor."""


def read_tensor(message: tensor_pb2.TensorProto) -> np.ndarray:
    """The array of a message of any numeric dtype, or string as an object array of bytes.

    As in TensorFlow, values come as `tensor_content` or in the dtype's own field, where the last one fills up what is
    missing, and zero or "" does where there is none. Raises `TensorMessageError`.
    """
    shape = _shape(message)
    count = math.prod(shape)
    is_text = message.dtype == types_pb2.DT_STRING
    values = _texts(message, count) if is_text else _numbers(message, count)
    try:
        return _filled(values, count).reshape(shape)
    except ValueError as error:  # more dimensions than an array can have
        raise TensorMessageError(str(error)) from error


def write_tensor(array: np.ndarray, dtype: str, message: tensor_pb2.TensorProto) -> None:
    """Write an array of `dtype` (DT_FLOAT, ...) into a message, in the field of its dtype.

    TensorFlow Serving answers in that form, and there are clients that read no other.
    """
    message.dtype = number = types_pb2.DataType.Value(dtype)
    for size in array.shape:
        message.tensor_shape.dim.add().size = size
    flat = np.ascontiguousarray(array).reshape(-1)
    if number == types_pb2.DT_STRING:
        message.string_val.extend(flat.tolist())
    elif number in _FORMS:
        form = _FORMS[number]
        getattr(message, form.field).extend(flat.view(form.wire).tolist())
    else:
        # Types that have come since, such as the 4 and 8 bit ones: as TensorFlow for Python packs them.
        made = tf.make_tensor_proto(array)
        message.tensor_content = made.tensor_content or array.tobytes()


def signature_message(as_json: Mapping[str, Any]) -> meta_graph_pb2.SignatureDef:
    """A signature from the JSON form that `Servable.signature_def` keeps."""
    return ParseDict(as_json, meta_graph_pb2.SignatureDef())


def _shape(message: tensor_pb2.TensorProto) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in message.tensor_shape.dim)
    if message.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise TensorMessageError("the shape is not known")
    return shape


def _numbers(message: tensor_pb2.TensorProto, count: int) -> np.ndarray:
    form = _FORMS.get(message.dtype)
    if form is None:
        return _other_numbers(message, count)
    content = message.tensor_content
    if content:
        if len(content) != count * form.array.itemsize:
            raise TensorMessageError(f"{len(content)} bytes for {count} values")
        wire = np.frombuffer(content, form.wire)
    else:
        values = getattr(message, form.field)
        # Through a wide type, as the field has room for more than the dtype: what does not fit wraps around.
        wide = np.int64 if form.field in ("int_val", "half_val", "bool_val") else form.wire
        wire = np.fromiter(values, wide, len(values)).astype(form.wire, copy=False)
        wire = wire[: len(wire) // form.numbers * form.numbers]
    return wire != 0 if form.array == np.bool_ else wire.view(form.array)


def _other_numbers(message: tensor_pb2.TensorProto, count: int) -> np.ndarray:
    if count > max(MAX_FILLED_BYTES, len(message.tensor_content)):
        raise TensorMessageError(f"a tensor of {count} values")
    try:
        return np.asarray(tf.make_ndarray(message)).reshape(-1)
    except (TypeError, ValueError, KeyError) as error:
        raise TensorMessageError(str(error)) from error


def _texts(message: tensor_pb2.TensorProto, count: int) -> np.ndarray:
    texts = list(_split(message.tensor_content, count)) if message.tensor_content else list(message.string_val)
    values = np.empty(len(texts), object)
    values[:] = texts
    return values


def _filled(values: np.ndarray, count: int) -> np.ndarray:
    if len(values) >= count:
        return values[:count]
    last = values[-1] if len(values) else (b"" if values.dtype == object else np.zeros(1, values.dtype)[0])
    size = values.itemsize + len(last) if values.dtype == object else values.itemsize
    if (count - len(values)) * size > MAX_FILLED_BYTES:
        raise TensorMessageError(f"{len(values)} values for a tensor of {count}")
    filled = np.empty(count, values.dtype)
    filled[: len(values)], filled[len(values) :] = values, last
    return filled


def _split(content: bytes, count: int) -> Iterator[bytes]:
    """Strings in `tensor_content`: the lengths of all of them as varints, then their bytes."""
    lengths, position = [], 0
    for _ in range(min(count, len(content))):
        length, position = _varint(content, position)
        lengths.append(length)
    if len(lengths) != count or position + sum(lengths) != len(content):
        raise TensorMessageError(f"{len(content)} bytes for {count} strings")
    for length in lengths:
        yield content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise TensorMessageError("a string's length is cut off")
