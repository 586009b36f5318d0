"""What an export says of its calibration: the file `assets.extra/calibration.json`, and what the graph calls it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import RequestError
from app.serving.golden import EXTRA_FOLDER, Golden

CALIBRATION_FILE = "calibration.json"
SETS_SIGNATURE = "predict_set"
# The constants of the graph: what a server computes with, whatever the file says.
TEMPERATURE_NODE = "calibration_temperature"
THRESHOLD_NODE = "conformal_threshold"


@dataclass(frozen=True)
class Calibration:
    """How an export was calibrated, on `validation_rows` texts.

    temperature: divides the logits. threshold: the least probability that puts a label into a set, 0 to 1. coverage:
    the share of sets that should hold the true label. score: the conformal score behind the threshold, "lac".
    """

    temperature: float
    coverage: float
    threshold: float
    score: str
    validation_rows: int


def read_calibration(version_folder: Path) -> Calibration | None:
    """The calibration of an export, None where it has no such file. Raises `RequestError` where it cannot be read."""
    file = version_folder / EXTRA_FOLDER / CALIBRATION_FILE
    if not file.is_file():
        return None
    try:
        found = Calibration(**json.loads(file.read_text(encoding="utf-8")))
        finite = all(math.isfinite(number) for number in (found.temperature, found.coverage, found.threshold))
    except (ValueError, TypeError) as error:
        raise RequestError(f"{file} cannot be read as a calibration: {error}") from error
    if not finite:
        raise RequestError(f"{file} holds {found}: expected finite numbers")
    return found


def calibration_problems(
    found: Calibration | None, constants: Mapping[str, Collection[float]], golden: Golden, has_sets: bool
) -> Iterator[str]:
    """Tell where the file, the graph and the golden sets do not agree.

    constants: the values, float32 as Python floats, of each constant of the graph, by its name. has_sets: whether the
    export has the signature `predict_set`. One without it, made before there was one, needs no file.
    """
    file = f"{EXTRA_FOLDER}/{CALIBRATION_FILE}"
    if found is None:
        if has_sets or golden.threshold is not None:
            yield f"{file} is missing"
        return
    if not has_sets:
        yield f"{file} is there, but no signature {SETS_SIGNATURE!r} that answers by it"
    for name, node in (("temperature", TEMPERATURE_NODE), ("threshold", THRESHOLD_NODE)):
        told = getattr(found, name)
        held = sorted(set(constants.get(node, ())))
        if held != [float(np.float32(told))]:
            computed = " and ".join(f"{value:.9g}" for value in held) or "none"
            yield f"{file} says {name} {told:.9g}, the graph computes with {computed}"
    if golden.threshold is not None and golden.threshold != found.threshold:
        yield f"{file} says threshold {found.threshold:.9g}, the golden sets are of {golden.threshold:.9g}"
