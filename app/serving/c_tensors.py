"""Arrays as tensors of TensorFlow's C API, and back."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np

from app.errors import RequestError
from app.serving.c_library import tensorflow

# `TF_DataType` of tensorflow/c/tf_datatype.h, which numbers dtypes as the file of a SavedModel does.
NUMBERS = {
    **{"DT_FLOAT": 1, "DT_DOUBLE": 2, "DT_INT32": 3, "DT_UINT8": 4, "DT_INT16": 5, "DT_INT8": 6, "DT_STRING": 7},
    **{"DT_COMPLEX64": 8, "DT_INT64": 9, "DT_BOOL": 10, "DT_BFLOAT16": 14, "DT_UINT16": 17, "DT_COMPLEX128": 18},
    **{"DT_HALF": 19, "DT_UINT32": 22, "DT_UINT64": 23},
}
NAMES = {number: name for name, number in NUMBERS.items()}
ARRAY_DTYPES: dict[str, np.dtype] = {
    **{"DT_FLOAT": np.dtype("f4"), "DT_DOUBLE": np.dtype("f8"), "DT_HALF": np.dtype("f2")},
    **{"DT_INT8": np.dtype("i1"), "DT_INT16": np.dtype("i2"), "DT_INT32": np.dtype("i4"), "DT_INT64": np.dtype("i8")},
    **{"DT_UINT8": np.dtype("u1"), "DT_UINT16": np.dtype("u2"), "DT_UINT32": np.dtype("u4")},
    **{"DT_UINT64": np.dtype("u8"), "DT_BOOL": np.dtype("?"), "DT_STRING": np.dtype(object)},
    **{"DT_COMPLEX64": np.dtype("c8"), "DT_COMPLEX128": np.dtype("c16"), "DT_BFLOAT16": np.dtype(ml_dtypes.bfloat16)},
}
_STRING_BYTES = 24  # sizeof(TF_TString), on machines of 64 bits


def array_dtype(dtype: str) -> np.dtype:
    """The dtype of arrays for DT_FLOAT, ...; `object`, of bytes, for strings. Raises `RequestError`."""
    if dtype not in ARRAY_DTYPES:
        raise RequestError(f"the dtype {dtype} cannot be passed through the C API: allowed are {', '.join(NUMBERS)}")
    return ARRAY_DTYPES[dtype]


def to_tensor(array: np.ndarray, dtype: str) -> int:
    """Return a new `TF_Tensor` of `dtype` with the values of the array; the caller deletes it."""
    values = np.ascontiguousarray(array, array_dtype(dtype)).reshape(array.shape)
    size = values.size * (_STRING_BYTES if dtype == "DT_STRING" else values.itemsize)
    shape = (ctypes.c_int64 * values.ndim)(*values.shape)
    tensor = int(tensorflow().TF_AllocateTensor(NUMBERS[dtype], shape, values.ndim, size))
    data = tensorflow().TF_TensorData(tensor)
    if dtype == "DT_STRING":
        _write_strings(values, data)
    elif size:
        ctypes.memmove(data, values.ctypes.data, size)
    return tensor


def to_array(tensor: int) -> np.ndarray:
    """Return a copy of the values of a `TF_Tensor`; strings as an object array of bytes."""
    library = tensorflow()
    number = library.TF_TensorType(tensor)
    dtype = array_dtype(NAMES.get(number, f"number {number}"))
    shape = tuple(library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor)))
    data, size = library.TF_TensorData(tensor), library.TF_TensorByteSize(tensor)
    if dtype.kind == "O":
        return _read_strings(data, shape)
    return np.frombuffer(ctypes.string_at(data, size) if size else b"", dtype).reshape(shape).copy()


def _write_strings(values: np.ndarray, data: int) -> None:
    # A graph may keep what it is fed, in a variable or a queue. So what these strings hold beyond their 24 bytes is
    # never given back: a process lives for one check.
    for place, value in enumerate(values.reshape(-1).tolist()):
        string = data + place * _STRING_BYTES
        tensorflow().TF_StringInit(string)
        tensorflow().TF_StringCopy(string, value, len(value))


def _read_strings(data: int, shape: tuple[int, ...]) -> np.ndarray:
    values = np.empty(shape, object)
    flat = values.reshape(-1)
    for place in range(flat.size):
        string = data + place * _STRING_BYTES
        start = tensorflow().TF_StringGetDataPointer(string)
        flat[place] = ctypes.string_at(start, tensorflow().TF_StringGetSize(string))
    return values
