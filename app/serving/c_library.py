"""TensorFlow's C API out of the library that lies in TensorFlow's wheel: found, declared, and nothing of it wrapped.

Neither TensorFlow nor Keras is imported for it: the folders of the packages are looked up, and `ctypes` does the rest.
Declarations follow `tensorflow/c/{c_api,tf_status,tf_tensor,tf_tstring,tf_buffer}.h` of the wheel.
"""

from __future__ import annotations

import ctypes
import importlib.util
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path

from app.errors import RequestError
from app.serving.status import Code, ServingError

# The library that exports it is another one on each system, and has moved before.
_LIBRARIES = ("libtensorflow_cc.so*", "libtensorflow_cc*.dylib", "libtensorflow.so*", "python/_pywrap_tensorflow_*")
_LOADER = "TF_LoadSessionFromSavedModel"
_OP_LIBRARIES = "python/ops/*.so"


class Output(ctypes.Structure):
    """`TF_Output`: one output of an operation of the graph."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


class Buffer(ctypes.Structure):
    """`TF_Buffer`: bytes that the library owns."""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


# Function -> result and arguments. Whatever is only handed on is a void pointer.
_FUNCTIONS = {
    "TF_Version": (c_char_p,),
    "TF_NewStatus": (c_void_p,),
    "TF_DeleteStatus": (None, c_void_p),
    "TF_GetCode": (c_int, c_void_p),
    "TF_Message": (c_char_p, c_void_p),
    "TF_LoadLibrary": (c_void_p, c_char_p, c_void_p),
    "TF_NewBuffer": (POINTER(Buffer),),
    "TF_DeleteBuffer": (None, POINTER(Buffer)),
    "TF_NewGraph": (c_void_p,),
    "TF_DeleteGraph": (None, c_void_p),
    "TF_GraphOperationByName": (c_void_p, c_void_p, c_char_p),
    "TF_OperationNumOutputs": (c_int, c_void_p),
    "TF_NewSessionOptions": (c_void_p,),
    "TF_DeleteSessionOptions": (None, c_void_p),
    # options, run options, folder, tags, their number, graph, meta graph, status
    _LOADER: (
        c_void_p,
        *(c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(Buffer), c_void_p),
    ),
    # session, run options, inputs, values, number, outputs, values, number, targets, number, metadata, status
    "TF_SessionRun": (
        None,
        *(c_void_p, c_void_p, POINTER(Output), POINTER(c_void_p), c_int, POINTER(Output), POINTER(c_void_p), c_int),
        *(c_void_p, c_int, c_void_p, c_void_p),
    ),
    "TF_CloseSession": (None, c_void_p, c_void_p),
    "TF_DeleteSession": (None, c_void_p, c_void_p),
    "TF_AllocateTensor": (c_void_p, c_int, POINTER(c_int64), c_int, c_size_t),
    "TF_DeleteTensor": (None, c_void_p),
    "TF_TensorType": (c_int, c_void_p),
    "TF_NumDims": (c_int, c_void_p),
    "TF_Dim": (c_int64, c_void_p, c_int),
    "TF_TensorByteSize": (c_size_t, c_void_p),
    "TF_TensorData": (c_void_p, c_void_p),
    "TF_StringInit": (None, c_void_p),
    "TF_StringCopy": (None, c_void_p, c_char_p, c_size_t),
    "TF_StringGetDataPointer": (POINTER(c_char), c_void_p),
    "TF_StringGetSize": (c_size_t, c_void_p),
}


@cache
def tensorflow() -> ctypes.CDLL:
    """The library with the functions above declared. Raises `RequestError` where the wheel holds none."""
    folder = package_folder("tensorflow")
    for pattern in _LIBRARIES:
        for path in sorted(folder.glob(pattern)):
            # Global, so that the op libraries find TensorFlow's symbols in it.
            library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            if hasattr(library, _LOADER):
                _declare(library)
                return library
    raise RequestError(f"{folder} holds no library that exports {_LOADER}; looked at {', '.join(_LIBRARIES)}")


def op_libraries() -> list[Path]:
    """The libraries of TensorFlow Text's operations, as TensorFlow Serving has them linked in; none where it is not."""
    try:
        return sorted(package_folder("tensorflow_text").glob(_OP_LIBRARIES))
    except RequestError:  # not every SavedModel needs them: one that does says so when it is loaded
        return []


def load_op_library(path: Path) -> None:
    """Register the operations and kernels of a library. Raises `RequestError` when it does not load."""
    with Status() as status:
        tensorflow().TF_LoadLibrary(str(path).encode(), status.pointer)
        if status.code != Code.OK:
            raise RequestError(f"the op library {path} does not load: {status.message}")


def package_folder(name: str) -> Path:
    """The folder of an installed package, which is not imported. Raises `RequestError`."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RequestError(f"the package {name} is not installed")
    return Path(found.submodule_search_locations[0])


class Status:
    """A `TF_Status` for the calls in a `with` block."""

    def __enter__(self) -> Status:
        self.pointer = tensorflow().TF_NewStatus()
        return self

    def __exit__(self, *_: object) -> None:
        tensorflow().TF_DeleteStatus(self.pointer)

    @property
    def code(self) -> Code:
        """How the last call ended."""
        return Code(tensorflow().TF_GetCode(self.pointer))

    @property
    def message(self) -> str:
        """What the last call says about it."""
        return str(tensorflow().TF_Message(self.pointer).decode(errors="replace"))

    def check(self) -> None:
        """Raise `ServingError` unless the last call went well."""
        if self.code != Code.OK:
            raise ServingError(self.code, self.message)


def _declare(library: ctypes.CDLL) -> None:
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
