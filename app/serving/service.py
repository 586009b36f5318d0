"""What a client can ask of the models that are served, whatever protocol it comes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.serving.http.tensors import shape_text
from app.serving.signatures import DEFAULT_SIGNATURE, Signature
from app.serving.status import Code, ServingError, invalid
from app.serving.versions import ServedModel, VersionStatus

if TYPE_CHECKING:
    from app.serving.servable import Servable


@dataclass(frozen=True)
class ModelSpec:
    """Which model a request is for: its name, and a version or a label, or neither for the latest version."""

    name: str
    version: int | None = None
    label: str | None = None


class PredictionService:
    """The calls of TensorFlow Serving's PredictionService and ModelService over models by name.

    Every failure is a `ServingError`.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}

    def servable(self, spec: ModelSpec) -> Servable:
        """The loaded version that a request is for."""
        if spec.label is not None:
            raise invalid(f"Unrecognized servable version label: {spec.label}")
        model = self._models.get(spec.name)
        if model is None:
            wanted = f"Latest({spec.name})" if spec.version is None else f"Specific({spec.name}, {spec.version})"
            raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
        return model.servable(spec.version)

    def statuses(self, spec: ModelSpec) -> list[VersionStatus]:
        """The versions of a model and their states, newest first; a label is ignored."""
        model = self._models.get(spec.name)
        if model is not None:
            return model.statuses(spec.version)
        if spec.version is None:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        raise ServingError(Code.NOT_FOUND, f"Could not find version {spec.version} of model {spec.name}")


def find_signature(servable: Servable, signature_name: str) -> Signature:
    """The signature to predict with; an empty name means `serving_default`."""
    name = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
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


def _fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    return len(shape) == len(declared) and all(
        allowed in (-1, size) for size, allowed in zip(shape, declared, strict=True)
    )
