"""The answers of a SavedModel to labelled texts: what `app.answers` needs, asked of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.answers import Answers
from app.errors import RequestError
from app.serving.calibration import read_calibration
from app.serving.predictor import INPUT, Predictor
from data.sources import DataConfig, load_rows
from data.sources.rows import slice_key

STATISTICS = "text_statistics"
STATISTICS_BATCH = 64
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """Texts with their labels, n each; places say where each stands, columns are further facts: object[n]."""

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    places: tuple[str, ...]
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


def read_labelled(config: DataConfig) -> LabelledTexts:
    """Read labelled texts; of a file that names splits its test rows, else all of them.

    Raises:
        DataError: the file cannot be used; RequestError: it names splits and none of its rows is a test row.
    """
    rows = load_rows(config)
    frame = rows.frame
    if frame["split"].notna().any():
        there = sorted(set(frame["split"]))
        frame = frame[frame["split"] == "test"]
        if not len(frame):
            raise RequestError(f"{rows.origin} has no test rows, only {' and '.join(there)}")
    return LabelledTexts(
        name=rows.name,
        texts=tuple(frame["text"]),
        labels=tuple(frame["label"]),
        places=tuple(frame.index),
        columns={name: frame[slice_key(name)].to_numpy(dtype=object) for name in rows.slice_columns},
    )


def ask(version_folder: Path, name: str, rows: LabelledTexts) -> Answers:
    """Ask an export every text.

    Its log-probabilities are of after the temperature. Where the export tells that, they are multiplied by it, which
    gives the logits but for a constant a row; else the temperature counts as 1 (see `told_temperature`). Of the
    sequence length only bounds are known: it is the length of the shortest text that is cut, or that of the longest
    text where none is.

    Raises:
        RequestError: no classifier of ours in the folder, or a label that it does not know.
    """
    temperature = told_temperature(version_folder) or 1.0
    predictor = Predictor(version_folder)
    label_names = predictor.label_names
    probabilities = predictor.predict(rows.texts).probabilities.astype(np.float64)
    num_tokens, unknown_share, truncated = _statistics(predictor, rows.texts)
    return Answers(
        name=name,
        label_names=label_names,
        texts=rows.texts,
        label_ids=_label_ids(rows, label_names, version_folder),
        logits=temperature * np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)),
        temperature=temperature,
        num_tokens=num_tokens,
        unknown_share=unknown_share,
        sequence_length=int(num_tokens[truncated].min() if truncated.any() else num_tokens.max() + 1),
        columns=rows.columns,
    )


def told_temperature(version_folder: Path) -> float | None:
    """The temperature that an export says it was calibrated with; None where it does not say."""
    found = read_calibration(version_folder)
    return None if found is None else found.temperature


def _statistics(predictor: Predictor, texts: Sequence[str]) -> tuple[npt.NDArray[Any], ...]:
    """num_tokens int64[n], unknown_share float64[n] and truncated bool[n]."""
    if STATISTICS not in predictor.signatures:
        raise RequestError(
            f"{predictor.servable.path} has no signature '{STATISTICS}', so nothing is known of how it reads texts; "
            f"it has {', '.join(sorted(predictor.signatures))}"
        )
    parts = []
    for start in range(0, len(texts), STATISTICS_BATCH):
        batch = np.array(
            [text.encode(errors="replace") for text in texts[start : start + STATISTICS_BATCH]], dtype=object
        )
        parts.append(predictor.servable.run(STATISTICS, {INPUT: batch}))
    kinds = {"num_tokens": np.int64, "unknown_share": np.float64, "truncated": np.bool_}
    return tuple(np.concatenate([part[name] for part in parts]).astype(kind) for name, kind in kinds.items())


def _label_ids(rows: LabelledTexts, label_names: Sequence[str], folder: Path) -> npt.NDArray[np.int64]:
    ids = {name: number for number, name in enumerate(label_names)}
    for label, place in zip(rows.labels, rows.places, strict=True):
        if label not in ids:
            raise RequestError(
                f"{place}: {folder} does not know the label {label!r}. It knows: {', '.join(label_names)}"
            )
    return np.array([ids[label] for label in rows.labels], dtype=np.int64)
