"""Everything that decides a pretraining: text, vocabulary, objective, bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError

from app.config import FitConfig, apply_setting, explain
from app.errors import RequestError
from app.initial_weights import VECTORS, InitConfig
from data.pipeline import PipelineConfig
from data.sources import DataConfig
from data.unlabelled import UnlabelledConfig
from data.vocabulary import VocabularyConfig
from models import MODELS, ModelConfig

GENTLER = {"piece_dropout": 0.0, "embedding_dropout": 0.1}
"""Defaults of a model's settings while it is pretrained: there is text enough, and pieces are hidden anyway."""


class VectorsConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Of skip-gram with negative sampling."""

    dim: int = Field(128, ge=2, le=1024)
    """Size of a vector; `model.embedding_dim` of the models that start from it must be the same."""
    window: int = Field(5, ge=1, le=50)
    """Pieces to each side that are predicted."""
    negative: int = Field(5, ge=1, le=50)
    sample: float = Field(1e-4, ge=0)
    """Share of all pieces from which on a piece is so frequent that it is left out now and then."""
    epochs: int = Field(4, ge=1)
    workers: int = Field(2, ge=1)
    """Threads; with one alone the same seed gives the same vectors."""


class LanguageConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Of masked pieces and of language models."""

    window: int = Field(128, ge=16, le=2048)
    """Pieces that are read at once, `[CLS]` included: long texts are cut into windows."""
    batch_size: int = Field(64, ge=1)
    masked_share: float = Field(0.15, gt=0, lt=1)
    negatives: int = Field(1024, ge=1)
    """Pieces that each target is held against instead of the whole vocabulary, where that is larger."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    epochs: int = Field(4, ge=1)
    steps: int | None = Field(None, ge=1)
    """Ends before all epochs are over; the schedule is for that many steps."""
    held_out_share: float = Field(0.01, gt=0, lt=0.5)
    """Of the texts, on which the loss is measured and nothing is learned."""
    checkpoint_steps: int = Field(500, ge=1)
    """Steps from one checkpoint, and one figure of the held-out loss, to the next."""


class PretrainingConfig(BaseModel, frozen=True, extra="forbid"):
    """One pretraining, resolved: what is saved with its run."""

    kind: str
    """`vectors`, or the name of a model in MODELS."""
    seed: int = Field(0, ge=0, lt=2**31)
    name: str | None = None
    """Of the run; by default the kind and the name of the text."""
    budget_minutes: float = Field(0, ge=0, allow_inf_nan=False)
    """Minutes of training; 0: no bound."""
    text: UnlabelledConfig = UnlabelledConfig()
    leave_out: tuple[DataConfig, ...] = ()
    """Labelled tasks whose validation and test texts are dropped before anything is learned."""
    vocabulary: VocabularyConfig = VocabularyConfig(size=30_000)
    pipeline: PipelineConfig = PipelineConfig()
    """Only `sequence_length` counts here: models with a table of positions have as many."""
    init: InitConfig = InitConfig()
    fit: FitConfig = FitConfig()
    vectors: VectorsConfig = VectorsConfig()
    language: LanguageConfig = LanguageConfig()
    model: SerializeAsAny[ModelConfig] = ModelConfig()

    def to_toml(self) -> str:
        """Write the configuration, for a person to read."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def flat(self) -> dict[str, Any]:
        """Return `section.key` -> value, as MLflow parameters are named, of the sections that count."""
        left_out = {"language", "model", "fit", "pipeline"} if self.kind == VECTORS else {"vectors"}
        flat: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json", exclude=left_out).items():
            flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
        return flat


def kinds() -> list[str]:
    """What can be pretrained: the vectors of pieces, and every model that has an embedding of pieces."""
    return [VECTORS, *(name for name, entry in MODELS.items() if "embedding_dim" in entry.config.model_fields)]


def resolve_pretraining(
    kind: str, overrides: Sequence[str], named: Mapping[str, Any], leave_out: Sequence[DataConfig] = ()
) -> PretrainingConfig:
    """Put a configuration together: defaults, then `overrides` (`section.key=value`), then `named` settings by section.

    Raises:
        RequestError: naming an unknown kind, setting or bad value, and what is allowed.
    """
    if kind not in kinds():
        raise RequestError(f"cannot pretrain {kind!r}. Known: {', '.join(kinds())}")
    settings: dict[str, Any] = {"kind": kind, "leave_out": tuple(leave_out), "vocabulary": {"size": 30_000}}
    for override in overrides:
        apply_setting(override, settings)
    for section in ("model", "language", "pipeline", "fit") if kind == VECTORS else ("vectors",):
        if section in settings:
            raise RequestError(f"--set {section}.* means nothing for {kind}: leave it out")
    for key, value in named.items():
        settings[key] = {**settings.get(key, {}), **value} if isinstance(value, Mapping) else value
    try:
        if kind != VECTORS:
            config = MODELS[kind].config
            defaults = {name: value for name, value in GENTLER.items() if name in config.model_fields}
            settings["model"] = config.model_validate({**defaults, **settings.get("model", {})})
    except ValidationError as error:
        raise RequestError(explain(error, MODELS[kind].config, kind, prefix="model.")) from None
    try:
        resolved = PretrainingConfig.model_validate(settings)
    except ValidationError as error:
        raise RequestError(explain(error, PretrainingConfig, kind)) from None
    if kind != VECTORS and resolved.language.window > resolved.pipeline.sequence_length:
        raise RequestError(
            f"language.window = {resolved.language.window}: at most pipeline.sequence_length "
            f"({resolved.pipeline.sequence_length})"
        )
    return resolved
