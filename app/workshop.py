"""Where a pretraining keeps what it has come to, so that one that was killed goes on: all files whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from app.pretraining_config import PretrainingConfig
from data.piece_windows import EncodedTexts
from data.unlabelled import UnlabelledTexts
from data.vocabulary import Vocabulary

STATE, PLAN, FINISHED, VOCABULARY, PIECES = "state.npz", "plan.json", "finished.json", "vocab.txt", "pieces.npz"


class Workshop:
    """The folder `<artifacts>/checkpoints/<fingerprint of configuration and texts>`."""

    def __init__(self, parent: Path, config: PretrainingConfig, texts: UnlabelledTexts) -> None:
        digest = hashlib.sha256(f"{config.model_dump_json()} {texts.fingerprint}".encode()).hexdigest()
        self.folder = parent / digest[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def plan(self) -> dict[str, Any]:
        """What was settled at the first start and holds for all later ones: the MLflow run, the number of steps."""
        return self._read(PLAN)

    def settle(self, **facts: Any) -> None:
        """Add to the plan."""
        self._write(PLAN, {**self.plan, **facts})

    @property
    def finished(self) -> dict[str, Any]:
        """What the pretraining came to; empty while it has not."""
        return self._read(FINISHED)

    def finish(self, facts: dict[str, Any]) -> None:
        """Remember what it came to and take away what was needed to go on."""
        self._write(FINISHED, facts)
        for path in self.folder.iterdir():
            if path.name != FINISHED:
                path.unlink()

    def vocabulary(self, learn: Callable[[], Vocabulary]) -> Vocabulary:
        """Return the vocabulary, learned the first time."""
        path = self.folder / VOCABULARY
        if not path.is_file():
            learn().save(path)
        return Vocabulary.load(path)

    def pieces(self, encode: Callable[[], EncodedTexts]) -> EncodedTexts:
        """Return the texts as pieces, tokenised the first time."""
        path = self.folder / PIECES
        if not path.is_file():
            encode().save(path)
        return EncodedTexts.load(path)

    def save_state(self, arrays: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        with self.replacing(STATE) as path, path.open("wb") as file:
            np.savez(file, **arrays)

    def load_state(self) -> dict[str, np.ndarray] | None:
        """Return the checkpoint, None where there is none."""
        path = self.folder / STATE
        if not path.is_file():
            return None
        with np.load(path) as file:
            return {name: file[name] for name in file.files}

    @contextlib.contextmanager
    def replacing(self, name: str) -> Any:
        """Give a path to write to that becomes the file of that name when it is complete."""
        aside = self.folder / f"{name}.part"
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(self.folder / name)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with self.replacing(name) as path:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
