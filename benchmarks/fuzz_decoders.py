"""libFuzzer, through atheris, on what reads a request's bytes: JSON, base64, and JSON into tensors.

Run by fuzz.py, in a process of its own, since libFuzzer ends it. Arguments are libFuzzer's.
"""

from __future__ import annotations

import json
import sys

import atheris

with atheris.instrument_imports(include=["app.serving.http"]):
    from app.serving.http.json_text import parse_object
    from app.serving.http.tensors import decode_base64, read_inputs, write_outputs

from fuzz_model import INPUTS

from app.serving.http.quoting import pretty
from app.serving.signatures import TensorInfo
from app.serving.status import ServingError

# The names of TensorFlow's types, as a signature gives them.
_TYPES = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE"}
SIGNATURES = {
    signature: {
        name: TensorInfo(
            name,
            _TYPES.get(dtype, f"DT_{dtype.upper()}"),
            None if shape is None else tuple(-1 if size is None else size for size in shape),
        )
        for name, (dtype, shape) in inputs.items()
    }
    for signature, inputs in INPUTS.items()
}


def read(data: bytes) -> None:
    """Read `data` in every way that a body is read; only the client may be at fault."""
    try:
        decode_base64({"b64": data[:1000].decode("latin-1")})
    except ServingError as error:
        _check(error)
    try:
        document = parse_object(data)
        pretty(document)
    except ServingError as error:
        _check(error)
        return
    except RecursionError:  # answered with 400: nested too deeply
        return
    for inputs in SIGNATURES.values():
        _read_tensors(document, inputs)


def _read_tensors(document: dict, inputs: dict[str, TensorInfo]) -> None:
    try:
        tensors, by_row = read_inputs(document, inputs)
        written = write_outputs(tensors, rows=by_row)
    except ServingError as error:
        _check(error)
    except RecursionError:
        return
    else:
        json.loads(written.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"), strict=False)


def _check(error: ServingError) -> None:
    """An error that is the client's fault, with a text that can be sent."""
    if error.http_status != 400:
        raise AssertionError(f"{error.http_status}: {error.message}")
    json.dumps({"error": error.message}, ensure_ascii=False).encode("utf-8", "replace")


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
