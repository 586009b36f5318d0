"""Classify and regress: which signatures answer tf.Example records, and what their tensors mean.

The rules and the words of the errors are TensorFlow Serving's (servables/tensorflow/classifier.cc, regressor.cc and
util.cc). Its model server leaves a signature's method_name unchecked unless `--enable_signature_method_name_check` is
given, so a signature that tf.saved_model.save wrote answers too, if its inputs and outputs have the right names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.serving.http.tensors import shape_text
from app.serving.signatures import DEFAULT_SIGNATURE, Signature
from app.serving.status import ServingError, invalid

if TYPE_CHECKING:
    from app.serving.servable import Servable

INPUTS = "inputs"  # of both: string[batch], serialized tf.Example records
CLASSES, SCORES = "classes", "scores"  # string[batch, classes], float32[batch, classes]; one of them may be missing
OUTPUTS = "outputs"  # of regress: float32[batch] or float32[batch, 1]
CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"

# A label and a score for each class; None for what the model does not give.
Classes = list[tuple[str | None, float | None]]


def classification_signature(servable: Servable, name: str) -> Signature:
    """The signature to classify with; an empty name means `serving_default`. Raises `ServingError`."""
    signature = _find(servable, name)
    if problem := _classification_problem(servable, signature):
        raise _wrong_signature(signature, "classification", CLASSIFY_METHOD, problem)
    return signature


def regression_signature(servable: Servable, name: str) -> Signature:
    """The signature to regress with; an empty name means `serving_default`. Raises `ServingError`."""
    signature = _find(servable, name)
    if problem := _regression_problem(servable, signature):
        raise _wrong_signature(signature, "regression", REGRESS_METHOD, problem)
    return signature


def example_tensor(examples: Sequence[bytes]) -> np.ndarray:
    """Serialized examples as string[n]. Raises `ServingError` when there is none."""
    if not examples:
        raise invalid("Input is empty.")
    tensor = np.empty(len(examples), object)
    tensor[:] = examples
    return tensor


def with_context(context: bytes, example: bytes) -> bytes:
    """One serialized example with the features of the request's context; its own win over those of the same name.

    Protobuf merges messages whose serialized forms stand one after the other, and of a map's equal keys the last wins.
    """
    return context + example


def read_classes(signature: Signature, outputs: Mapping[str, np.ndarray], count: int) -> list[Classes]:
    """The classes of each of `count` examples. Raises `ServingError` when the model answers in another form."""
    found = {}
    for name, dtype in ((CLASSES, "DT_STRING"), (SCORES, "DT_FLOAT")):
        if name in signature.outputs:
            _check_classes(name, outputs[name], signature.outputs[name].dtype, dtype, count)
            found[name] = outputs[name]
    widths = [array.shape[1] for array in found.values()]
    if len(set(widths)) > 1:
        raise invalid(f"Tensors class and score should match in dim_size(1). Got {widths[0]} vs. {widths[1]}")
    missing: list[list[Any]] = [[None] * widths[0]] * count
    labels = _decoded(found[CLASSES]) if CLASSES in found else missing
    scores: list[list[Any]] = found[SCORES].tolist() if SCORES in found else missing
    return [list(zip(*row, strict=True)) for row in zip(labels, scores, strict=True)]


def read_values(signature: Signature, outputs: Mapping[str, np.ndarray], count: int) -> list[float]:
    """The value of each of `count` examples. Raises `ServingError` when the model answers in another form."""
    values, dtype = outputs[OUTPUTS], signature.outputs[OUTPUTS].dtype
    if values.ndim != 1 and not (values.ndim == 2 and values.shape[1] == 1):
        shape = shape_text(values.shape)
        raise invalid(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {shape}")
    if len(values) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(values)}")
    if dtype != "DT_FLOAT":
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {dtype}")
    found: list[float] = values.ravel().tolist()
    return found


def _find(servable: Servable, name: str) -> Signature:
    name = name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    return signature


def _wrong_signature(signature: Signature, kind: str, method: str, problem: str) -> ServingError:
    # What was made for another API is told so: its inputs and outputs are no mistakes of its own.
    if signature.method_name != method:
        problem = f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
    return invalid(problem)


def _classification_problem(servable: Servable, signature: Signature) -> str | None:
    if len(signature.inputs) != 1:
        return "Expected one input Tensor."
    if len(signature.outputs) not in (1, 2):
        return f"Expected one or two output Tensors, found {len(signature.outputs)}"
    if INPUTS not in signature.inputs:
        return f"No classification inputs found in SignatureDef: {_text(servable, signature)}"
    if not signature.outputs.keys() & {CLASSES, SCORES}:
        return (
            'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was:'
            f" {_text(servable, signature)}"
        )
    return None


def _regression_problem(servable: Servable, signature: Signature) -> str | None:
    if len(signature.inputs) != 1:
        return "Expected one input Tensor."
    if len(signature.outputs) != 1:
        return "Expected one output Tensor."
    if INPUTS not in signature.inputs:
        return f"No regression inputs found in SignatureDef: {_text(servable, signature)}"
    if OUTPUTS not in signature.outputs:
        return f"No regression outputs found in SignatureDef: {_text(servable, signature)}"
    return None


def _text(servable: Servable, signature: Signature) -> str:
    from app.serving.messages import signature_message  # TensorFlow's messages, and with them all of TensorFlow

    text: Any = signature_message(servable.signature_def[signature.name])
    return str(text)


def _check_classes(name: str, array: np.ndarray, dtype: str, expected: str, count: int) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
    if dtype != expected:
        raise invalid(f"Expected {name} Tensor of {expected}. Got: {dtype}")
    if len(array) != count:
        raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")


def _decoded(labels: np.ndarray) -> list[list[Any]]:
    return [[label.decode("utf-8", "surrogateescape") for label in row] for row in labels.tolist()]
