"""What a model starts from instead of random weights: runs of `valence pretrain`, or word vectors from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from pydantic import BaseModel, Field

from app.errors import RequestError
from app.wording import listing
from data.splits import Splits
from data.unlabelled import Hashes, count_seen
from data.vectors import compose, read_word_vectors
from data.vocabulary import Vocabulary
from models.language_modelling import EMBEDDING, embedding_table, encoder_of

VECTORS = "vectors"
"""The kind of a run whose only weights are the embedding of pieces."""
FACTS, VOCABULARY, HASHES, WEIGHTS = "pretrained.json", "vocab.txt", "text_hashes.npy", "weights.npz"
Weights = Mapping[str, np.ndarray]
"""`layer/number` -> array, the number being the place among the layer's weights."""


class InitConfig(BaseModel, frozen=True, extra="forbid"):
    """What training starts from."""

    runs: tuple[str, ...] = ()
    """Runs of `valence pretrain`, as ids of MLflow or names."""
    vectors: Path | None = None
    """File of word vectors."""
    starts_from: str = ""
    """What that comes to for this model, in words; `train` fills it in. Empty: random weights."""
    folders: tuple[Path, ...] = Field((), exclude=True)
    """Where the runs' artifacts are on this disk, in the order of `runs`; `app.pretrained_runs.locate` fills it in."""


@dataclass(frozen=True)
class Facts:
    """What a pretraining run says of itself. `kind` is `vectors` or a model's name; `num_texts` were read in it.

    `before` tells what the run itself started from, empty for random weights.
    """

    kind: str
    text: str
    num_texts: int
    before: str = ""

    def __str__(self) -> str:
        """Vectors learned from imdb-unsup (49,214 texts)."""
        what = "vectors" if self.kind == VECTORS else f"an encoder for {self.kind}"
        started = f", which started from {self.before}" if self.before else ""
        return f"{what} learned from {self.text} ({self.num_texts:,} texts){started}"


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What a pretraining run leaves: its weights, its vocabulary, and the hashes of every text it learned from."""

    facts: Facts
    vocabulary: Vocabulary
    hashes: Hashes
    weights: Weights

    def save(self, folder: Path) -> None:
        """Write the files of the artifact folder `pretrained`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.vocabulary.save(folder / VOCABULARY)
        np.save(folder / HASHES, self.hashes)
        arrays: dict[str, Any] = dict(self.weights)
        np.savez(folder / WEIGHTS, **arrays)
        (folder / FACTS).write_text(json.dumps(asdict(self.facts), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Pretrained:
        """Read what `save` wrote; RequestError where files are missing or broken."""
        try:
            facts = Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
            with np.load(folder / WEIGHTS) as file:
                weights = {name: file[name] for name in file.files}
            return cls(facts, Vocabulary.load(folder / VOCABULARY), np.load(folder / HASHES), weights)
        except (OSError, ValueError, TypeError) as error:
            raise RequestError(f"{folder} is not what a pretraining run leaves: {error}") from error


@dataclass(frozen=True, eq=False)
class Start:
    """Everything that the models of one command start from; empty: random weights.

    seen: split -> how many of its texts the outside text held; None until the splits are known.
    """

    pretrained: tuple[Pretrained, ...] = ()
    table: np.ndarray | None = None
    file: str = ""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary that goes with the weights; None: learn one from the training split."""
        return self.pretrained[0].vocabulary if self.pretrained else None

    def seen(self, splits: Splits) -> dict[str, int]:
        """Return how many texts of validation and of test stand among those that were learned from, by split."""
        if not self.pretrained:
            return {}
        hashes = np.unique(np.concatenate([one.hashes for one in self.pretrained]))
        return {
            "validation": count_seen(splits.validation.texts, hashes),
            "test": count_seen(splits.test.texts, hashes),
        }


RANDOM_WEIGHTS = Start()


def read_start(init: InitConfig) -> Start:
    """Read what the runs left.

    Raises:
        RequestError: files are missing or broken, or the runs do not share their vocabulary.
    """
    if len(init.folders) != len(init.runs):
        raise RequestError(f"init.runs: where {listing(list(init.runs))} left their files is not known here")
    pretrained = tuple(Pretrained.load(folder) for folder in init.folders)
    prints = {one.vocabulary.fingerprint for one in pretrained}
    if len(prints) > 1:
        each = ", ".join(
            f"{run} {one.vocabulary.fingerprint[:8]}" for run, one in zip(init.runs, pretrained, strict=True)
        )
        raise RequestError(
            f"the runs to start from do not share their vocabulary ({each}). "
            "Pretrain the later one from the earlier: valence pretrain ... --init RUN"
        )
    return Start(pretrained)


def with_file(start: Start, init: InitConfig, vocabulary: Vocabulary) -> Start:
    """Add the vectors of pieces that are composed from the file of word vectors, where one is named."""
    if init.vectors is None:
        return start
    return replace(start, table=compose(read_word_vectors(init.vectors), vocabulary).table, file=init.vectors.name)


def describe(model_name: str, pretrained: Sequence[Facts], vectors: Path | None) -> str:
    """Return what a model of that name starts from, in words; empty: random weights and a vocabulary of its own."""
    if not pretrained and vectors is None:
        return ""
    encoders = [facts for facts in pretrained if facts.kind == model_name]
    tables = [facts for facts in pretrained if facts.kind == VECTORS] if _has_embedding(model_name) else []
    said = [str(facts) for facts in (*tables, *encoders)]
    if vectors is not None and _has_embedding(model_name):
        said.append(f"vectors of the file {vectors.name}")
    if said:
        return listing(said)
    if not pretrained:
        return ""
    return f"a vocabulary learned from {pretrained[0].text} ({pretrained[0].num_texts:,} texts)"


def start_from(model: keras.Model, model_name: str, start: Start) -> None:
    """Copy into `model` what it starts from: word vectors first, then the encoder of a run of the same model.

    Every layer of the encoder is replaced; what follows, the head, stays random. A model without an `embedding` takes
    nothing.

    Raises:
        RequestError: a layer has another size, or is not there; the message names both.
    """
    tables = [one.weights[f"{EMBEDDING}/0"] for one in start.pretrained if one.facts.kind == VECTORS]
    for table in (*tables, *([start.table] if start.table is not None else [])):
        if (variable := embedding_table(model)) is not None:
            _assign(variable, table, EMBEDDING, model_name)
    for one in start.pretrained:
        if one.facts.kind == model_name:
            _load_encoder(encoder_of(model), one.weights, model_name)


def weights_of(encoder: keras.Model) -> dict[str, np.ndarray]:
    """Return the weights of an encoder by layer, as `Pretrained` keeps them."""
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(encoder).items()}


def _variables(encoder: keras.Model) -> dict[str, Any]:
    return {
        f"{layer.name}/{number}": variable for layer in encoder.layers for number, variable in enumerate(layer.weights)
    }


def _load_encoder(encoder: keras.Model, weights: Weights, model_name: str) -> None:
    there = _variables(encoder)
    for missing in (set(weights) - set(there), set(there) - set(weights)):
        if missing:
            who = "the encoder that was pretrained" if missing <= set(weights) else f"this {model_name}"
            layers = listing(sorted({name.split("/")[0] for name in missing}))
            raise RequestError(f"only {who} has {layers}: use the --set model.* options of the pretraining")
    for name, variable in there.items():
        _assign(variable, weights[name], name.split("/")[0], model_name)


def _assign(variable: Any, value: np.ndarray, layer: str, model_name: str) -> None:
    if tuple(variable.shape) == value.shape:
        variable.assign(value)
        return
    hint = "use the --set options of the pretraining"
    if layer == EMBEDDING and variable.shape[0] == value.shape[0]:
        hint = f"--set model.embedding_dim={value.shape[1]}"
    elif layer == EMBEDDING and variable.shape[1] == value.shape[1]:
        hint = f"its positions are those of --set pipeline.sequence_length={value.shape[0]}"
    raise RequestError(
        f"{model_name}: the layer {layer} is {_size(variable.shape)}, and what it should start from "
        f"{_size(value.shape)}: {hint}"
    )


def _has_embedding(model_name: str) -> bool:
    from models import MODELS

    return "embedding_dim" in MODELS[model_name].config.model_fields


def _size(shape: Sequence[int]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
