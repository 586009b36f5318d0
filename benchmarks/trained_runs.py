"""One trained run as the accuracy benchmarks keep it, and the file that they keep all of them in.

The figures of a run stand in the JSON file; its answers on the test split, which intervals need, in an .npz file each,
in a folder beside it. A run that is in the file is not trained again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from app.errors import RequestError


class RunKey(BaseModel, frozen=True, extra="forbid"):
    """What makes a run another run: the splits, the system, its settings (a sha256 of them) and the seed."""

    data_fingerprint: str
    system: str
    settings: str
    seed: int

    @property
    def short(self) -> str:
        """A file name of the run."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:20]


class TrainedRecord(BaseModel, frozen=True, extra="forbid"):
    """One training of one system, our own or a peer, and how it did on the test split.

    train_rows, validation_rows and test_rows are those of the splits. accuracy, macro_f1 and log_loss are of the test
    split. training_cpu_seconds: user and system time of all threads, from raw weights to the last step of fitting, for
    a peer from texts to the last step and with its choice of settings; preparation_cpu_seconds: of vocabulary and
    tokenising, which our models share. outside_text: what text beyond the training split was used, None for none.
    encoder_accuracy: of our model's encoder without the n-grams beside it, None where there are none. code: version of
    the sources that it was trained with (`code_version.py`), None in runs from before that was kept.
    """

    key: RunKey
    data: str
    train_rows: int
    validation_rows: int
    test_rows: int
    label_names: tuple[str, ...]
    accuracy: float
    macro_f1: float
    log_loss: float
    training_cpu_seconds: float
    preparation_cpu_seconds: float
    parameters: int
    outside_text: str | None
    encoder_accuracy: float | None = None
    configuration: dict[str, Any]
    details: dict[str, Any]
    date: str
    commit: str | None
    code: str | None = None


class RunStore:
    """The runs of one JSON file, read anew before each write: several processes may add to it at once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.answers_folder = file.with_name(f"{file.stem}-answers")
        self._records = self._read()

    def __len__(self) -> int:
        return len(self._records)

    def find(self, key: RunKey) -> TrainedRecord | None:
        """The run with this key, or None where it is still to be trained."""
        record = self._records.get(key)
        return record if record is not None and self._answers_file(key).exists() else None

    def answers(self, key: RunKey) -> tuple[np.ndarray, np.ndarray]:
        """Label ids int[n] and probabilities float[n, c] of a run on the test split."""
        with np.load(self._answers_file(key)) as saved:
            return saved["label_ids"], saved["probabilities"]

    def add(self, record: TrainedRecord, label_ids: np.ndarray, probabilities: np.ndarray) -> None:
        """Keep a run: its answers first, so that no record is without them."""
        self.answers_folder.mkdir(parents=True, exist_ok=True)
        answers = self._answers_file(record.key)
        unfinished = answers.with_name(f"{answers.stem}.{os.getpid()}.npz")
        np.savez_compressed(unfinished, label_ids=label_ids, probabilities=probabilities)
        unfinished.replace(answers)
        with self._locked():
            self._records = {**self._read(), record.key: record}
            unfinished = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            runs = [record.model_dump(mode="json") for record in self._records.values()]
            unfinished.write_text(json.dumps({"runs": runs}, indent=2) + "\n", encoding="utf-8")
            unfinished.replace(self.file)

    def _answers_file(self, key: RunKey) -> Path:
        return self.answers_folder / f"{key.short}.npz"

    def _read(self) -> dict[RunKey, TrainedRecord]:
        if not self.file.exists():
            return {}
        try:
            runs = json.loads(self.file.read_text(encoding="utf-8"))["runs"]
            records = [TrainedRecord.model_validate(run) for run in runs]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValidationError) as error:
            raise RequestError(
                f"--output {self.file}: not a file of trained runs. Name another one ({error})"
            ) from None
        return {record.key: record for record in records}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.answers_folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def settings_hash(configuration: dict[str, Any]) -> str:
    """The sha256 (hex) of settings, whatever the order in which they stand."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()
