"""What a client can ask of the models that are served, whatever protocol it comes by."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from app.serving.examples import (
    INPUTS,
    Classes,
    classification_signature,
    example_tensor,
    read_classes,
    read_values,
    regression_signature,
)
from app.serving.http.tensors import shape_text
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.signatures import DEFAULT_SIGNATURE, INTERNAL, Signature
from app.serving.status import ServingError, invalid
from app.serving.versions import VersionStatus

if TYPE_CHECKING:
    from app.serving.metrics import ServingMetrics
    from app.serving.servable import Servable


@dataclass(frozen=True)
class ModelMetadata:
    """The version that answers a request, and its signatures in JSON form (`Servable.signature_def`)."""

    version: int
    signature_def: Mapping[str, Any]


class PredictionService:
    """The calls of TensorFlow Serving's PredictionService and ModelService over the models of a repository.

    Every failure is a `ServingError`.
    """

    def __init__(self, repository: ModelRepository, metrics: ServingMetrics) -> None:
        self.repository = repository
        self.metrics = metrics

    def lease(self, spec: ModelSpec) -> AbstractContextManager[Servable]:
        """The loaded version that a request is for; it stays loaded within the `with` block."""
        return self.repository.lease(spec)

    def statuses(self, spec: ModelSpec) -> list[VersionStatus]:
        """The versions of a model and their states, newest first; a label is ignored."""
        return self.repository.statuses(spec)

    def metadata(self, spec: ModelSpec) -> ModelMetadata:
        """The version that a request is for and what it can be asked."""
        with self.lease(spec) as servable:
            return ModelMetadata(servable.version, servable.signature_def)

    @contextmanager
    def timed(self, model: str, api: str) -> Iterator[None]:
        """Count the time within the `with` block as that of a model's graph; a block that raises counts nothing."""
        started = time.perf_counter()
        yield
        self.metrics.runtime(model, api, time.perf_counter() - started)


def find_signature(servable: Servable, signature_name: str) -> Signature:
    """The signature to predict with; an empty name means `serving_default`."""
    name = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None or name.startswith(INTERNAL):
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature_name or 'DEFAULT'}")
    return signature


def predict(servable: Servable, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a signature on tensors named and typed as it declares; their shapes are checked here."""
    for name, array in inputs.items():
        declared = signature.inputs[name].shape
        if declared is not None and not _fits(array.shape, declared):
            raise invalid(
                f"Input {name} has shape {shape_text(array.shape)} but the signature takes {shape_text(declared)}"
            )
    return servable.run(signature.name, inputs)


def classify(servable: Servable, signature_name: str, examples: Sequence[bytes]) -> list[Classes]:
    """The classes of each serialized tf.Example, as `(label, score)`; None for what the model does not give.

    An empty name means `serving_default`. A label keeps bytes that are no UTF-8 as surrogates.
    """
    signature = classification_signature(servable, signature_name)
    outputs = predict(servable, signature, {INPUTS: example_tensor(examples)})
    return read_classes(signature, outputs, len(examples))


def regress(servable: Servable, signature_name: str, examples: Sequence[bytes]) -> list[float]:
    """The value of each serialized tf.Example; an empty name means `serving_default`."""
    signature = regression_signature(servable, signature_name)
    outputs = predict(servable, signature, {INPUTS: example_tensor(examples)})
    return read_values(signature, outputs, len(examples))


def too_many_rows(rows: int, limit: int) -> ServingError:
    """The refusal of a request of more rows than the server allows."""
    return invalid(f"The request has {rows} rows: at most {limit} are allowed; ask in several requests")


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(
        allowed in (-1, size) for size, allowed in zip(shape, declared, strict=True)
    )
