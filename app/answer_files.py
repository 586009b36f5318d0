"""A trained model's answers as files: a Parquet table for people and programs, and a JSON file that vouches for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from pydantic import BaseModel, ValidationError

from app.answers import Answers
from app.errors import RequestError

TABLE, HEADER = "answers.parquet", "answers.json"
FACTS = ("split", "text", "label", "label_id", "num_tokens", "unknown_share")
COLUMN = "column_"  # before the name of a user's column, which may be called `text` too


class Header(BaseModel, frozen=True, extra="forbid"):
    """What `answers.json` holds; `rows` by split, in the order of the table."""

    name: str
    label_names: tuple[str, ...]
    temperature: float
    sequence_length: int
    fingerprints: dict[str, str]
    rows: dict[str, int]
    table_sha256: str


@dataclass(frozen=True, eq=False)
class AnswerFiles:
    """What `read_answer_files` found: the answers by split, and the run's `Lock` as a dict."""

    answers: dict[str, Answers]
    fingerprints: dict[str, str]


def write_answers(folder: Path, answers: Mapping[str, Answers], fingerprints: Mapping[str, str]) -> None:
    """Write `answers.parquet` and `answers.json` of one model into `folder`, which is made if need be.

    A reader finds both files or none of this call: what is half written is no answer file. `answers` by split; their
    name, labels, temperature and sequence length must be the same. `fingerprints` as in `app.fairness.Lock`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.concat([_frame(split, part) for split, part in answers.items()], ignore_index=True)
    _replace(folder / TABLE, lambda path: frame.to_parquet(path, index=False))
    (facts,) = {(part.name, part.label_names, part.temperature, part.sequence_length) for part in answers.values()}
    name, label_names, temperature, sequence_length = facts
    header = Header(
        name=name,
        label_names=label_names,
        temperature=temperature,
        sequence_length=sequence_length,
        fingerprints=dict(fingerprints),
        rows={split: len(part) for split, part in answers.items()},
        table_sha256=_sha256(folder / TABLE),
    )
    # The header last: with the old one, or none, the new table is refused.
    _replace(folder / HEADER, lambda path: path.write_text(header.model_dump_json(indent=2) + "\n", encoding="utf-8"))


def read_answers(folder: Path) -> dict[str, Answers]:
    """Read what `write_answers` wrote: the answers by split.

    Raises:
        RequestError: a file is missing, damaged, or the two are not of one run.
    """
    return read_answer_files(folder).answers


def read_answer_files(folder: Path) -> AnswerFiles:
    """Read the answers with the fingerprints that were written beside them; errors as `read_answers`."""
    header = _read_header(folder / HEADER)
    frame = _read_table(folder / TABLE, header)
    answers = {}
    for split in header.rows:
        part = frame[frame["split"] == split]
        try:
            answers[split] = _answers(part, header)
        except RequestError as error:
            raise RequestError(f"{folder / TABLE}, split {split}: {error}") from None
    return AnswerFiles(answers, header.fingerprints)


def _frame(split: str, answers: Answers) -> pd.DataFrame:
    logits = {f"logit_{label_id}": column for label_id, column in enumerate(answers.logits.T)}
    return pd.DataFrame(
        {
            "split": split,
            "text": list(answers.texts),
            "label": [answers.label_names[label_id] for label_id in answers.label_ids],
            "label_id": answers.label_ids.astype(np.int64),
            "num_tokens": answers.num_tokens.astype(np.int64),
            "unknown_share": answers.unknown_share.astype(np.float64),
            **logits,
            **{f"{COLUMN}{name}": list(values) for name, values in answers.columns.items()},
        }
    )


def _answers(part: pd.DataFrame, header: Header) -> Answers:
    columns = {name.removeprefix(COLUMN): part[name].to_numpy(dtype=object) for name in part if name.startswith(COLUMN)}
    return Answers(
        name=header.name,
        label_names=header.label_names,
        texts=tuple(part["text"]),
        label_ids=part["label_id"].to_numpy(np.int64),
        logits=part[_logit_columns(header)].to_numpy(np.float64),
        temperature=header.temperature,
        num_tokens=part["num_tokens"].to_numpy(np.int64),
        unknown_share=part["unknown_share"].to_numpy(np.float64),
        sequence_length=header.sequence_length,
        columns=columns,
    )


def _read_header(path: Path) -> Header:
    try:
        return Header.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RequestError(f"no {path.name} in {path.parent}: a run's answers are {TABLE} and {HEADER}") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror})") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "content"
        raise RequestError(f"{path} is damaged, or not of this version: {where}: {problem['msg']}") from None


def _read_table(path: Path, header: Header) -> pd.DataFrame:
    """Read the table that the header vouches for."""
    if not path.is_file():
        raise RequestError(f"no {path.name} in {path.parent}: a run's answers are {TABLE} and {HEADER}")
    if _sha256(path) != header.table_sha256:
        raise RequestError(f"{path} is damaged, or of another run than {HEADER}: its SHA-256 is not the one there")
    try:
        frame = pd.read_parquet(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path}: not a Parquet file that can be read ({error})") from None
    lacking = [name for name in (*FACTS, *_logit_columns(header)) if name not in frame]
    if lacking:
        raise RequestError(f"{path} has no column {', '.join(lacking)}. It has: {', '.join(frame)}")
    rows = {str(split): int(count) for split, count in frame["split"].value_counts(sort=False).items()}
    if rows != header.rows:
        raise RequestError(f"{path} holds the rows {rows}, {HEADER} says {header.rows}")
    return frame


def _logit_columns(header: Header) -> list[str]:
    return [f"logit_{label_id}" for label_id in range(len(header.label_names))]


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Put a file in place all at once."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
