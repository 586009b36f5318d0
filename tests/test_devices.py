"""What training asks of a GPU. None is here: which GPUs there are is made up, what follows from it is real."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Silent, small_config

from app.devices import built_for, let_memory_grow, resolve_precision
from app.training import prepare, train
from models import MODELS


def see(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int] | None) -> list[Any]:
    """Let TensorFlow list GPUs of these compute capabilities; None has no such detail, as with ROCm."""
    gpus = [SimpleNamespace(name=f"GPU:{place}", capability=one) for place, one in enumerate(capabilities)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        tf.config.experimental,
        "get_device_details",
        lambda gpu: {} if gpu.capability is None else {"compute_capability": gpu.capability},
    )
    return gpus


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ((), "float32"),
        (((7, 5),), "float32"),
        (((8, 0),), "mixed_bfloat16"),
        (((9, 0), (8, 9)), "mixed_bfloat16"),
        (((9, 0), (7, 0)), "float32"),
        ((None,), "float32"),
    ],
)
def test_auto_is_bfloat16_where_every_gpu_has_cores_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: tuple, precision: str
):
    see(monkeypatch, *capabilities)
    assert resolve_precision("auto") == precision
    assert resolve_precision("float32") == "float32"
    assert resolve_precision("mixed_bfloat16") == "mixed_bfloat16"


def test_every_gpu_takes_memory_as_it_needs_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    gpus, asked = see(monkeypatch, (8, 0), (9, 0)), []

    def set_memory_growth(gpu: Any, wanted: bool) -> None:
        asked.append((gpu, wanted))
        if gpu is gpus[0]:
            raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_memory_growth)
    let_memory_grow()
    assert asked == [(gpu, True) for gpu in gpus]
    assert "The memory of GPU:0 is taken as it was set up before" in caplog.text
    assert "GPU:1" not in caplog.text


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_computes_in_bfloat16_with_weights_and_logits_in_float32(name: str):
    entry = MODELS[name]
    with built_for("mixed_bfloat16"):
        model = entry.build(entry.config(), vocabulary_size=50, num_classes=3, sequence_length=12)
    assert keras.config.dtype_policy().name == "float32"
    logits = model(np.array([[2, 7, 9, 0], [2, 5, 0, 0]], np.int32), training=True)
    assert logits.dtype == tf.float32
    assert np.isfinite(logits.numpy()).all()
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    computes = {layer.compute_dtype for layer in model.layers if layer.trainable_weights}
    assert ("bfloat16" in computes) == (name != "linear")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_what_is_fitted_in_bfloat16_is_asked_in_float32(name: str, reviews: Path, tmp_path: Path):
    config = small_config(name, reviews, "fit.precision=mixed_bfloat16", "model.epochs=1")
    run = train(config, prepare(config, tmp_path, Silent()), lambda report: None)
    assert {layer.compute_dtype for layer in run.model._flatten_layers()} == {"float32"}
    assert run.evaluation.metrics["accuracy"].value > 0.5
