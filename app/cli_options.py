"""What `train` and `tune` both ask of the data and the training, and the settings that the answers stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str | None,
    typer.Option(help="A source (rotten-tomatoes, imdb), a CSV/TSV/JSONL/Parquet file, or a folder of classes."),
]
ValidationData = Annotated[Path | None, typer.Option(help="File of the validation split.")]
TestData = Annotated[Path | None, typer.Option(help="File of the test split, which nothing is chosen by.")]
Archive = Annotated[Path | None, typer.Option(help="imdb: the archive or unpacked folder to read.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the texts.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels.")]
SplitColumn = Annotated[str | None, typer.Option(help="Column that names each row's split.")]
GroupColumn = Annotated[str | None, typer.Option(help="Column whose values stay on one side of a split.")]
SliceColumn = Annotated[
    list[str] | None, typer.Option(help="Column that `train` looks at parts of the test split by; may be repeated.")
]
Name = Annotated[str | None, typer.Option(help="Name of the experiment and of what is written; the data's by default.")]
Init = Annotated[list[str] | None, typer.Option(help="Run of valence pretrain to start from; repeatable.")]
Vectors = Annotated[Path | None, typer.Option(help="Word vectors to start from: word2vec, GloVe, .npy.")]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings, e.g. a run's config.toml.")]
Seed = Annotated[int | None, typer.Option(help="Seed of weights, dropout, batch order and a search.")]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Repeat bit for bit; slower.")]
Long = Annotated[str | None, typer.Option(help="Long texts: truncate; or window, which reads them whole.")]
ClassWeights = Annotated[str | None, typer.Option(help="balanced: rare classes weigh more; or none.")]

SETTING_OF = {  # the parameter of a command -> the setting
    "data": "data.source",
    "name": "data.name",
    "validation_data": "data.validation",
    "test_data": "data.test",
    "archive": "data.archive",
    "text_column": "data.text_column",
    "label_column": "data.label_column",
    "split_column": "data.split_column",
    "group_column": "data.group_column",
    "slice_column": "data.slice_columns",
    "long": "pipeline.long",
    "class_weights": "fit.class_weights",
    "init": "init.runs",
    "vectors": "init.vectors",
    "seed": "seed",
    "seeds": "seeds",
    "deterministic": "deterministic",
}


def as_overrides(parameters: Mapping[str, Any]) -> list[str]:
    """Write what a command was called with as `--set` would: `--set` first, so that an option of its own wins.

    `parameters` are those of `typer.Context`; what is not given, or stands for no setting, is left out.
    """
    given = {SETTING_OF[one]: value for one, value in parameters.items() if one in SETTING_OF}
    written = [f"{key}={_as_toml(value)}" for key, value in given.items() if _is_given(value)]
    return [*(parameters.get("settings") or []), *written]


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value not in ([], ())


def _as_toml(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
