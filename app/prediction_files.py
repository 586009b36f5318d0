"""A file of texts in, the same rows with their answers out, piece by piece, however large the file is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow

from app.errors import RequestError
from app.prediction import Answer, Classifier, predict_texts
from app.row_writers import WRITABLE, open_writer, parquet_schema
from data.errors import DataError
from data.sources.columns import find_column
from data.sources.streams import PlacedRow, Row, stream_chunks, stream_rows

# Many batches at a time: the classifier can then put texts of like length into the same one (docs/log.md).
CHUNK_ROWS = 2048


@dataclass(frozen=True)
class FilePlan:
    """A file that was read through once and found right, and where its answers go. See `plan_file`."""

    source: Path
    target: Path
    text_column: str
    columns: tuple[str, ...]  # those of all rows, in the order in which they turn up
    count: int  # of rows
    schema: pyarrow.Schema | None  # of these columns, where the target is Parquet


def plan_file(source: Path, target: Path, text_column: str | None = None, *, overwrite: bool = False) -> FilePlan:
    """Find what is wrong with the two files before a model is loaded and works on them.

    Args:
        source: CSV, TSV, JSONL or Parquet, by its suffix.
        target: any of the same formats, by its suffix.
        text_column: the column with the texts; None means `text`.
        overwrite: whether a target that is there is replaced. The source itself never is.

    Raises:
        RequestError: the target cannot be written.
        DataError: the source cannot be read, has no such column, or holds something else than texts there;
            or its values do not fit into Parquet and the target is that.
    """
    _check_target(source, target, overwrite)
    wanted = text_column or "text"
    columns: dict[str, None] = {}
    count = 0
    for placed in stream_rows(source):
        columns.update(dict.fromkeys(placed[1]))
        _text(placed, wanted)
        count += 1
    find_column(str(source), columns, wanted, "text")
    schema = parquet_schema(source, tuple(columns)) if target.suffix.lower() == ".parquet" else None
    return FilePlan(source, target, wanted, tuple(columns), count, schema)


def predict_file(
    classifier: Classifier,
    plan: FilePlan,
    on_progress: Callable[[int, int], None],
    batch_size: int | None = None,
) -> int:
    """Write the source's rows to the target, in order, each with its answer; return how many they are.

    The answer is in the columns `label`, `confidence` and, for each label, `probability_<label>`. Where the
    source has a column of that name, the answer's is `predicted_<name>`. A null text counts as the empty
    text and gets the model's answer to that; a blank one is asked as it is. The target comes into being whole
    or not at all, also when this is interrupted.

    `on_progress` is called with the rows done and the rows in all, after every few thousand. Raises what the
    classifier raises, and `DataError` when the source can no longer be read, or Parquet would lose digits of a number.
    """
    added = answer_columns(plan.columns, classifier.label_names)
    done = 0
    with (
        _written_aside(plan.target) as part,
        open_writer(part, [*plan.columns, *added], _schema(plan, added)) as write,
    ):
        for chunk in stream_chunks(plan.source, max(CHUNK_ROWS, batch_size or 0)):
            answers = predict_texts(classifier, [_text(placed, plan.text_column) for placed in chunk], batch_size)
            write([_answered(row, added, answer) for (_, row), answer in zip(chunk, answers, strict=True)])
            done += len(chunk)
            on_progress(done, plan.count)
    return done


def answer_columns(taken: Collection[str], label_names: Sequence[str]) -> list[str]:
    """Return the names of the columns that hold an answer, none of which is taken."""
    names = ["label", "confidence", *(f"probability_{name}" for name in label_names)]
    return [_free(name, taken) for name in names]


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"predicted_{name}"
    return name


def _answered(row: Row, added: Sequence[str], answer: Answer) -> Row:
    values = [answer["label"], answer["confidence"], *answer["probabilities"].values()]
    return row | dict(zip(added, values, strict=True))


def _schema(plan: FilePlan, added: Sequence[str]) -> pyarrow.Schema | None:
    if plan.schema is None:
        return None
    label, *numbers = added
    fields = [
        pyarrow.field(label, pyarrow.string()),
        *(pyarrow.field(name, pyarrow.float32()) for name in numbers),
    ]
    return pyarrow.schema([*plan.schema, *fields], plan.schema.metadata)


def _text(placed: PlacedRow, column: str) -> str:
    place, row = placed
    value = row.get(column)
    if value is None or value != value:  # NaN, which is how some tools write a null
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{place}: column {column!r} holds {value!r} ({type(value).__name__}) where a text is expected. "
            "Name the column with the texts with --text-column."
        )
    return value


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    if target.suffix.lower() not in WRITABLE:
        raise RequestError(
            f"{target}: cannot write a {target.suffix or 'file without a suffix'}."
            f" Files that can be written: {', '.join(WRITABLE)}"
        )
    if not target.parent.is_dir():
        raise RequestError(f"{target}: there is no folder {target.parent}")
    if not target.exists():
        return
    if target.is_dir():
        raise RequestError(f"{target} is a folder: name a file")
    if source.exists() and target.samefile(source):
        raise RequestError(f"{target} is the file that is read: name another one for the answers")
    if not overwrite:
        raise RequestError(f"{target} is there already: name another file, or replace it with --overwrite")


@contextlib.contextmanager
def _written_aside(target: Path) -> Iterator[Path]:
    """Give a path of the same suffix beside the target, and rename what was written there at the end."""
    part = target.with_name(f".part-{os.getpid()}-{target.name}")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
