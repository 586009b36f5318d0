"""JSON to tensors and back, by the rules of TensorFlow Serving's REST API."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.serving.http.float_text import write_floats
from app.serving.http.json_text import PASS_BYTES
from app.serving.http.quoting import pretty
from app.serving.signatures import TensorInfo
from app.serving.status import Code, ServingError, invalid

Tensors = dict[str, np.ndarray]

_INT32 = (-(2**31), 2**31 - 1)
# The whole numbers each type takes. The short ones take what fits in 32 bits and wrap around, as over there.
_WHOLE_NUMBERS = {
    "DT_INT8": _INT32,
    "DT_INT16": _INT32,
    "DT_INT32": _INT32,
    "DT_UINT8": _INT32,
    "DT_INT64": (-(2**63), 2**63 - 1),
    "DT_UINT32": (0, 2**32 - 1),
    "DT_UINT64": (0, 2**64 - 1),
}
_ARRAY_TYPES: dict[str, Any] = {
    "DT_STRING": object,
    "DT_BOOL": np.bool_,
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
}
# ASCII's white space, which base64 may hold anywhere.
_SPACE = b" \t\n\v\f\r"
# numpy's limit is 64, and the rows of a request add one.
_MAX_DIMENSIONS = 63
_JSON_TYPES = {
    type(None): "Null",
    dict: "Object",
    list: "Array",
    str: "String",
    int: "Number",
    float: "Number",
}


# --- a request's JSON -> tensors ---


@dataclass
class _Values:
    """The flat values of one tensor while it is read; its shape is that of the first list on each level."""

    dtype: str
    shape: tuple[int, ...] = ()
    values: list[Any] = field(default_factory=list)

    def array(self, shape: Sequence[int]) -> np.ndarray:
        target = _ARRAY_TYPES[self.dtype]
        with np.errstate(over="ignore"):  # too large for float32 is infinity
            if self.dtype in _WHOLE_NUMBERS:
                wide = np.uint64 if self.dtype == "DT_UINT64" else np.int64
                return np.array(self.values, wide).astype(target).reshape(shape)
            return np.array(self.values, target).reshape(shape)


def read_inputs(document: Mapping[str, Any], inputs: Mapping[str, TensorInfo]) -> tuple[Tensors, bool]:
    """The tensors of a predict request, and whether it came in row form (`instances`) rather than in columns.

    Strings become object arrays of bytes. Raises `ServingError`, worded as TensorFlow Serving words it.
    """
    if "instances" in document and "inputs" in document:
        raise invalid(
            f"JSON Value: {pretty(document)} Not formatted correctly expecting only one of 'inputs' or"
            " 'instances' keys to exist "
        )
    if "inputs" in document:
        return _read_columns(document["inputs"], inputs), False
    if "instances" not in document:
        raise invalid("Missing 'inputs' or 'instances' key")
    instances = document["instances"]
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {pretty(document)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid(f"JSON Value: {pretty(document)} No values in 'instances' array")
    return _read_rows(instances, inputs), True


def _read_columns(value: Any, inputs: Mapping[str, TensorInfo]) -> Tensors:
    if not isinstance(value, dict) or is_base64(value):
        if len(inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as"
                " per tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    tensors = {}
    for name in sorted(inputs):
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        tensor = _read_tensor(value[name], inputs[name].dtype)
        tensors[name] = tensor.array(tensor.shape)
    return tensors


def _read_rows(instances: Sequence[Any], inputs: Mapping[str, TensorInfo]) -> Tensors:
    if not isinstance(instances[0], dict) and len(inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as"
            " per tensorinfo_map"
        )
    named = _is_row_object(instances[0])
    read_row = _read_named_row if named else _read_plain_row
    batch: dict[str, _Values] = {}
    for index, row in enumerate(instances):
        if named and not _is_row_object(row):
            raise invalid(f"Expecting object but got list at item {index} of input list")
        if not named and _is_row_object(row):
            raise invalid(f"Expecting value/list but got object at item {index} of input list")
        read_row(index, row, inputs, batch)
    return {name: column.array((len(instances), *column.shape)) for name, column in batch.items()}


def _read_named_row(
    index: int, row: dict[str, Any], inputs: Mapping[str, TensorInfo], batch: dict[str, _Values]
) -> None:
    for name, value in row.items():
        try:
            if name not in inputs:
                raise invalid(f"JSON object: does not have named input: {name}")
            _append(batch, name, _read_tensor(value, inputs[name].dtype))
        except ServingError as error:
            where = f"{index} key: {name} of 'instances' list"
            raise invalid(f"Failed to process element: {where}. Error: {error.code.name}: {error.message}") from error
    if row.keys() != inputs.keys():
        raise invalid(
            f"Failed to process element: {index} of 'instances' list. JSON object: {pretty(row)}"
            f" keys must be equal to: {','.join(sorted(inputs))}"
        )


def _read_plain_row(index: int, row: Any, inputs: Mapping[str, TensorInfo], batch: dict[str, _Values]) -> None:
    name, info = next(iter(inputs.items()))
    try:
        _append(batch, name, _read_tensor(row, info.dtype))
    except ServingError as error:
        where = f"{index} of 'instances' list"
        raise invalid(f"Failed to process element: {where}. Error: {error.code.name}: {error.message}") from error


def _append(batch: dict[str, _Values], name: str, row: _Values) -> None:
    """Add one row's tensor to its column; every row has the size and the shape of the first."""
    column = batch.get(name)
    if column is None:
        batch[name] = row
        return
    size = math.prod(column.shape)
    if len(row.values) != size:
        raise invalid(f"Expecting tensor size: {size} but got: {len(row.values)}")
    if row.shape != column.shape:
        raise invalid(f"Expecting shape {shape_text(column.shape)} but got: {shape_text(row.shape)}")
    column.values.extend(row.values)


def _read_tensor(value: Any, dtype: str) -> _Values:
    tensor = _Values(dtype, _dense_shape(value))
    if len(tensor.shape) > _MAX_DIMENSIONS:
        raise invalid(f"Encountered {len(tensor.shape)} nested lists: at most {_MAX_DIMENSIONS} are allowed")
    _fill(tensor, value, 0)
    if dtype not in _ARRAY_TYPES:  # and no value of it was met
        raise _no_such_conversion(value, dtype)
    return tensor


def _dense_shape(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return tuple(shape)


def _fill(tensor: _Values, value: Any, level: int) -> None:
    rank = len(tensor.shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {pretty(value)} found at incorrect level: {level + 1} in the JSON DOM."
                f" Expected at level: {rank}"
            )
        tensor.values.append(_read_value(value, tensor.dtype))
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != tensor.shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {tensor.shape[level]}"
        )
    for item in value:
        _fill(tensor, item, level + 1)


def _read_value(value: Any, dtype: str) -> Any:
    kind = type(value)  # not isinstance: JSON's true is no number, though Python's is
    if dtype == "DT_STRING":
        if kind is dict:
            return decode_base64(value)
        if kind is str:
            return value.encode("utf-8", PASS_BYTES)
    elif dtype in _WHOLE_NUMBERS:
        low, high = _WHOLE_NUMBERS[dtype]
        if kind is int and low <= value <= high:
            return value
    elif dtype in ("DT_FLOAT", "DT_DOUBLE"):
        if kind is int or kind is float:
            return value
    elif dtype == "DT_BOOL":
        if kind is bool:
            return value
    else:
        raise _no_such_conversion(value, dtype)
    raise invalid(f"JSON Value: {pretty(value)} Type: {json_type(value)} is not of expected type: {_type_text(dtype)}")


def _no_such_conversion(value: Any, dtype: str) -> ServingError:
    message = f"Conversion of JSON Value: {pretty(value)} to type: {_type_text(dtype)}"
    return ServingError(Code.UNIMPLEMENTED, message)


def _type_text(dtype: str) -> str:
    return dtype.removeprefix("DT_").lower()


def shape_text(shape: Sequence[int]) -> str:
    """A shape as error messages show it: `[2,-1]`."""
    return f"[{','.join(map(str, shape))}]"


def json_type(value: Any) -> str:
    """RapidJSON's name for the type of a value; True and False are types of their own to it."""
    return _JSON_TYPES.get(type(value)) or str(value)


def is_base64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": "..."}`, the form of bytes."""
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _is_row_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def decode_base64(value: dict[str, Any]) -> bytes:
    """The bytes of `{"b64": "..."}`. Raises `ServingError` for another object, and for what is no base64."""
    if not is_base64(value):
        raise invalid(f"JSON Value: {pretty(value)} not formatted correctly for base64 data")
    try:
        text = value["b64"].encode("ascii").translate(None, _SPACE)
        # Padding is `=` or, in Abseil's dialect, `.`. It may be missing, but what is there has to be right.
        digits = text.rstrip(b"=.")
        needed = -len(digits) % 4
        if len(text) - len(digits) not in (0, needed):
            raise invalid("Unable to base64 decode")
        return base64.b64decode(digits + b"=" * needed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


# --- tensors -> an answer's JSON ---


def write_outputs(outputs: Mapping[str, np.ndarray], *, rows: bool) -> str:
    """The JSON of a predict answer: `predictions`, one item a row, or `outputs`, one item a tensor.

    A single output stands without its name. Raises `ServingError` for what cannot be written.
    """
    return f'{{"predictions": {_write_rows(outputs)}}}' if rows else f'{{"outputs": {_write_columns(outputs)}}}'


def _write_rows(outputs: Mapping[str, np.ndarray]) -> str:
    batch_size = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if batch_size is not None and len(array) != batch_size:
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {batch_size}")
        batch_size = len(array)
    columns = [_nested(array, _writer(name, array), keep=1) for name, array in outputs.items()]
    if len(columns) == 1:
        return f"[{', '.join(columns[0])}]"
    return f"[{', '.join(_object(outputs, row) for row in zip(*columns, strict=True))}]"


def _write_columns(outputs: Mapping[str, np.ndarray]) -> str:
    columns = [_nested(array, _writer(name, array), keep=0)[0] for name, array in outputs.items()]
    return columns[0] if len(columns) == 1 else _object(outputs, columns)


def _object(names: Mapping[str, Any], texts: Sequence[str]) -> str:
    members = (f"{json.dumps(name, ensure_ascii=False)}: {text}" for name, text in zip(names, texts, strict=True))
    return f"{{{', '.join(members)}}}"


def _nested(array: np.ndarray, write: Callable[[np.ndarray], list[str]], *, keep: int) -> list[str]:
    """The values of an array as JSON lists, nested by its shape below the first `keep` dimensions."""
    texts = write(array.ravel())
    for dimension in range(array.ndim - 1, keep - 1, -1):
        size = array.shape[dimension]
        count = math.prod(array.shape[:dimension])
        texts = [f"[{', '.join(texts[group * size : (group + 1) * size])}]" for group in range(count)]
    return texts


def _writer(name: str, array: np.ndarray) -> Callable[[np.ndarray], list[str]]:
    if array.dtype == object:
        return _write_base64 if name.endswith("_bytes") else _write_strings
    if array.dtype == np.bool_:
        return lambda flat: ["true" if value else "false" for value in flat.tolist()]
    if array.dtype in (np.float32, np.float64):
        return write_floats
    if array.dtype.name in ("int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"):
        return lambda flat: [str(value) for value in flat.tolist()]
    type_name = {"float16": "half"}.get(array.dtype.name, array.dtype.name)
    raise invalid(f"Failed to write JSON value for tensor type: {type_name}")


def _write_strings(flat: np.ndarray) -> list[str]:
    return [json.dumps(value.decode("utf-8", PASS_BYTES), ensure_ascii=False) for value in flat]


def _write_base64(flat: np.ndarray) -> list[str]:
    return [f'{{"b64": "{base64.b64encode(value).decode()}"}}' for value in flat]
