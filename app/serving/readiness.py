"""Whether the models that are served answer: one row through each version that takes requests."""

from __future__ import annotations

import struct
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.serving.repository import ModelRepository, ModelSpec
from app.serving.signatures import DEFAULT_SIGNATURE, INTERNAL, Signature
from app.serving.status import Code, ServingError
from app.serving.versions import State

if TYPE_CHECKING:
    from app.serving.servable import Servable

Inputs = dict[str, np.ndarray]

# A full queue is no fault: a server that is taken out for it leaves its load to the others, and they fall next.
_BUSY = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)


class ModelProbe:
    """Runs a row through models: the first of a version's warm-up records, else a blank one.

    A blank row that the graph refuses for its values was answered too: the graph ran.
    """

    def __init__(self, repository: ModelRepository) -> None:
        self._repository = repository
        self._rows: weakref.WeakKeyDictionary[Servable, tuple[str, Inputs, bool]] = weakref.WeakKeyDictionary()

    def check(self) -> tuple[dict[str, list[str]], list[str]]:
        """The versions of each model that answered, newest first, and what is wrong with the others."""
        models: dict[str, list[str]] = {}
        faults: list[str] = []
        for name in self._repository.names():
            try:
                models[name], wrong = self._check_model(name)
            except ServingError as error:  # it was taken out of the config file since its name was listed
                wrong = [f"{name}: {error.message}"]
            faults += wrong
        return models, faults

    def _check_model(self, name: str) -> tuple[list[str], list[str]]:
        statuses = self._repository.statuses(ModelSpec(name))
        available = [status.version for status in statuses if status.state == State.AVAILABLE]
        if not available:
            reasons = "; ".join(status.message for status in statuses if status.message)
            return [], [f"{name} has no version that takes requests: {reasons or 'none is loaded yet'}"]
        faults = {version: self._fault(name, version) for version in available}
        answered = [str(version) for version, fault in faults.items() if not fault]
        return answered, [f"{name} version {version}: {fault}" for version, fault in faults.items() if fault]

    def _fault(self, name: str, version: int) -> str:
        """What is wrong with a version, or nothing."""
        try:
            with self._repository.lease(ModelSpec(name, version)) as servable:
                self._run(servable)
        except ServingError as error:
            was_replaced = error.code == Code.NOT_FOUND and not self._is_available(name, version)
            return "" if error.code in _BUSY or was_replaced else error.message
        except Exception as error:  # a graph of strangers can fail in any way; that is what is asked here
            return f"{type(error).__name__}: {error}"
        return ""

    def _is_available(self, name: str, version: int) -> bool:
        statuses = self._repository.statuses(ModelSpec(name))
        return any(status.version == version and status.state == State.AVAILABLE for status in statuses)

    def _run(self, servable: Servable) -> None:
        if servable not in self._rows:
            self._rows[servable] = probe_row(servable)
        signature_name, inputs, is_blank = self._rows[servable]
        try:
            servable.run(signature_name, inputs)
        except ServingError as error:
            if not is_blank or error.code != Code.INVALID_ARGUMENT:
                raise


def probe_row(servable: Servable) -> tuple[str, Inputs, bool]:
    """A signature's name, one row of inputs for it, and whether that row was made up."""
    from app.serving.servable import WARM_UP_RECORDS, blank_row  # imports TensorFlow

    recorded = _recorded_row(servable, servable.path / WARM_UP_RECORDS)
    if recorded is not None:
        return (*recorded, False)
    names = [name for name in sorted(servable.signatures) if not name.startswith(INTERNAL)]
    name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names or not names else names[0]
    return name, blank_row(servable.signatures[name]), True


def _recorded_row(servable: Servable, path: Path) -> tuple[str, Inputs] | None:
    """The first row of the first warm-up record; None where there is none or it is for no signature to predict with."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    try:
        request = prediction_log_pb2.PredictionLog.FromString(_first_record(path)).predict_log.request
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        inputs = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
    except (OSError, DecodeError, struct.error, TypeError, ValueError):
        return None
    signature = servable.signatures.get(name)
    if signature is None or set(inputs) != set(signature.inputs):
        return None
    return name, {key: _one_row(array, signature, key) for key, array in inputs.items()}


def _first_record(path: Path) -> bytes:
    """TFRecord: length uint64, its checksum, the record. Loading has read the file whole, so nothing is checked."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(4, 1)
        return file.read(min(length, path.stat().st_size))


def _one_row(array: np.ndarray, signature: Signature, name: str) -> np.ndarray:
    shape = signature.inputs[name].shape
    return array[:1] if shape and shape[0] == -1 else array
