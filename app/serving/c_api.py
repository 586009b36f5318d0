"""A SavedModel loaded and run through TensorFlow's C API: the loader of TensorFlow Serving, and no Python in between.

`python -m app.serving.c_api FOLDER [QUESTIONS]` runs every signature in a process that imports neither TensorFlow nor
Keras, and writes the answers as JSON to standard output. What is asked is in the file QUESTIONS, as `write_tensors`
writes it; without one it is what `verify` asks.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import RequestError
from app.serving.array_text import Tensors, read_tensors, write_tensors
from app.serving.bare_signatures import SERVING_TAG, signatures_in
from app.serving.c_library import Output, Status, load_op_library, op_libraries, tensorflow
from app.serving.c_tensors import to_array, to_tensor
from app.serving.golden import EXTRA_FOLDER, GOLDEN_FILE, read_golden
from app.serving.questions import questions
from app.serving.signatures import Signature, TensorInfo
from app.serving.status import Code, ServingError, invalid

_FORBIDDEN = ("tensorflow", "keras")


class CSession:
    """A SavedModel version folder, loaded by `TF_LoadSessionFromSavedModel`.

    `libraries` are those of the operations that TensorFlow itself does not have; TensorFlow Text's by default. Raises
    `RequestError` with TensorFlow's reason when the folder or a library cannot be loaded.
    """

    def __init__(self, folder: Path, libraries: Sequence[Path] | None = None) -> None:
        self.libraries = list(op_libraries() if libraries is None else libraries)
        for library in self.libraries:
            load_op_library(library)
        self._graph = tensorflow().TF_NewGraph()
        self._session, meta_graph = self._load(folder)
        self.signatures: Mapping[str, Signature] = signatures_in(meta_graph)

    def run(self, signature_name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one signature on whole tensors; strings are object arrays of bytes, going in and coming out.

        Raises `ServingError` with TensorFlow's reason, and when the inputs are not those of the signature.
        """
        signature = self._signature(signature_name, inputs)
        fed = [to_tensor(inputs[name], info.dtype) for name, info in signature.inputs.items()]
        fetched = (ctypes.c_void_p * len(signature.outputs))()
        try:
            self._run(self._places(signature.inputs), fed, self._places(signature.outputs), fetched)
            return {name: to_array(tensor) for name, tensor in zip(signature.outputs, list(fetched), strict=True)}
        finally:
            for tensor in [*fed, *filter(None, fetched)]:
                tensorflow().TF_DeleteTensor(tensor)

    def close(self) -> None:
        """Give the memory of the session and its graph back."""
        with Status() as status:
            tensorflow().TF_CloseSession(self._session, status.pointer)
            tensorflow().TF_DeleteSession(self._session, status.pointer)
        tensorflow().TF_DeleteGraph(self._graph)

    def _load(self, folder: Path) -> tuple[int, bytes]:
        library = tensorflow()
        options, meta_graph = library.TF_NewSessionOptions(), library.TF_NewBuffer()
        tags = (ctypes.c_char_p * 1)(SERVING_TAG.encode())
        with Status() as status:
            session = library.TF_LoadSessionFromSavedModel(
                options, None, str(folder).encode(), tags, 1, self._graph, meta_graph, status.pointer
            )
            code, message = status.code, status.message
        content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length) if session else b""
        library.TF_DeleteBuffer(meta_graph)
        library.TF_DeleteSessionOptions(options)
        if code != Code.OK:
            library.TF_DeleteGraph(self._graph)
            raise RequestError(f"{folder} cannot be loaded by the C API: {_reason(message)}{self._hint(message)}")
        return session, content

    def _hint(self, message: str) -> str:
        if "Op type not registered" not in message:
            return ""
        return f" (op libraries loaded: {', '.join(path.name for path in self.libraries) or 'none'})"

    def _signature(self, name: str, inputs: Mapping[str, np.ndarray]) -> Signature:
        if name not in self.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        signature = self.signatures[name]
        if set(inputs) != set(signature.inputs):
            raise invalid(f"{name} takes {sorted(signature.inputs)}, not {sorted(inputs)}")
        return signature

    def _places(self, tensors: Mapping[str, TensorInfo]) -> ctypes.Array[Output]:
        return (Output * len(tensors))(*(self._place(info.name) for info in tensors.values()))

    def _place(self, tensor: str) -> Output:
        operation, _, index = tensor.partition(":")
        pointer = tensorflow().TF_GraphOperationByName(self._graph, operation.encode())
        if not pointer or int(index or 0) >= tensorflow().TF_OperationNumOutputs(pointer):
            raise ServingError(Code.NOT_FOUND, f"the graph has no tensor {tensor!r}, which a signature names")
        return Output(pointer, int(index or 0))

    def _run(self, inputs: ctypes.Array[Output], fed: list[int], outputs: ctypes.Array[Output], fetched: Any) -> None:
        values = (ctypes.c_void_p * len(fed))(*fed)
        with Status() as status:
            tensorflow().TF_SessionRun(
                *(self._session, None, inputs, values, len(fed), outputs, fetched, len(outputs)),
                *(None, 0, None, status.pointer),
            )
            status.check()


def answers(folder: Path, asked: Tensors | None = None) -> dict[str, Any]:
    """Load the folder, run its signatures on what is asked, and return the answers as `write_tensors` does.

    With `version` of TensorFlow beside them. Raises `RequestError` naming the signature that does not run.
    """
    session = CSession(folder)
    if asked is None:
        has_golden = (folder / EXTRA_FOLDER / GOLDEN_FILE).is_file()
        asked = questions(session.signatures, read_golden(folder) if has_golden else None)
    found = {name: _answer(session, name, inputs) for name, inputs in asked.items()}
    session.close()
    return {"answers": write_tensors(found), "version": tensorflow().TF_Version().decode()}


def main(arguments: Sequence[str]) -> None:
    """Answer as this file says at its top; exit with 1 and the reason on standard error when that fails."""
    try:
        folder, *files = (Path(argument) for argument in arguments)
        asked = read_tensors(json.loads(files[0].read_text(encoding="utf-8"))) if files else None
        told = answers(folder, asked)
    except RequestError as error:
        sys.exit(str(error))
    imported = [name for name in _FORBIDDEN if name in sys.modules]
    if imported:
        sys.exit(f"{' and '.join(imported)} was imported: this is no independent check any more")
    sys.stdout.write(json.dumps(told) + "\n")


def _answer(session: CSession, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    try:
        return session.run(name, inputs)
    except ServingError as error:
        raise RequestError(f"signature {name!r} does not run: {_reason(error.message)}") from error


def _reason(message: str) -> str:
    return (message.strip().splitlines() or ["no reason given"])[0]


if __name__ == "__main__":
    main(sys.argv[1:])
