"""Answers as files: what is read is what was written, and what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app.answer_files import HEADER, TABLE, read_answer_files, read_answers, write_answers
from app.answers import Answers
from app.errors import RequestError

FINGERPRINTS = {"data": "1f", "tuning_budget": "0"}


def answers(name: str = "lstm", rows: int = 5, **changes: object) -> Answers:
    chance = np.random.default_rng(rows)
    facts: dict[str, object] = {
        "name": name,
        "label_names": ("bad", "so, so", "good"),
        "texts": tuple(f"text {row}\n“é” 很好" for row in range(rows)),
        "label_ids": chance.integers(0, 3, rows),
        "logits": chance.normal(size=(rows, 3)),
        "temperature": 1.25,
        "num_tokens": chance.integers(0, 40, rows),
        "unknown_share": chance.random(rows),
        "sequence_length": 24,
        "columns": {"film": np.array(["Up", "", "M"] * rows, dtype=object)[:rows]},
    }
    return Answers(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_answers(tmp_path / "answers", {"validation": answers(rows=3), "test": answers(rows=5)}, FINGERPRINTS)
    return tmp_path / "answers"


def assert_equal(found: Answers, expected: Answers) -> None:
    for plain in ("name", "label_names", "texts", "temperature", "sequence_length"):
        assert getattr(found, plain) == getattr(expected, plain)
    for array in ("label_ids", "logits", "num_tokens", "unknown_share"):
        np.testing.assert_array_equal(getattr(found, array), getattr(expected, array))
        assert getattr(found, array).dtype == getattr(expected, array).dtype
    assert {name: list(values) for name, values in found.columns.items()} == {
        name: list(values) for name, values in expected.columns.items()
    }


def test_what_is_read_is_what_was_written_bit_for_bit(folder):
    found = read_answer_files(folder)
    assert list(found.answers) == ["validation", "test"]
    assert_equal(found.answers["validation"], answers(rows=3))
    assert_equal(found.answers["test"], answers(rows=5))
    assert found.fingerprints == FINGERPRINTS


def test_a_user_s_column_may_be_called_as_one_of_ours(tmp_path):
    columns = {name: np.array(["a", "b"], dtype=object) for name in ("text", "label_id", "logit_0", "split")}
    write_answers(tmp_path, {"test": answers(rows=2, columns=columns)}, {})
    assert_equal(read_answers(tmp_path)["test"], answers(rows=2, columns=columns))


def test_the_table_is_one_that_pandas_users_understand(folder):
    frame = pd.read_parquet(folder / TABLE)
    assert list(frame) == [
        *("split", "text", "label", "label_id", "num_tokens", "unknown_share"),
        *("logit_0", "logit_1", "logit_2", "column_film"),
    ]
    assert frame["split"].tolist() == ["validation"] * 3 + ["test"] * 5
    assert [answers().label_names[label_id] for label_id in frame["label_id"]] == frame["label"].tolist()


def test_only_the_two_files_are_left_and_they_replace_those_of_before(folder):
    assert {path.name for path in folder.iterdir()} == {TABLE, HEADER}
    write_answers(folder, {"test": answers("linear", rows=4)}, {})
    assert {path.name for path in folder.iterdir()} == {TABLE, HEADER}
    (test,) = read_answers(folder).values()
    assert (test.name, len(test)) == ("linear", 4)


def truncate(folder: Path) -> None:
    content = (folder / TABLE).read_bytes()
    (folder / TABLE).write_bytes(content[: len(content) // 2])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / TABLE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / TABLE).write_bytes(content)


def of_another_run(folder: Path) -> None:
    other = folder.parent / "other"
    write_answers(other, {"test": answers("linear")}, {})
    (other / TABLE).replace(folder / TABLE)


def header(folder: Path, **changes: object) -> None:
    content = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    (folder / HEADER).write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / TABLE).unlink(), "no answers.parquet in"),
        (lambda folder: (folder / HEADER).unlink(), "no answers.json in"),
        (truncate, "answers.parquet is damaged, or of another run"),
        (flip_a_bit, "answers.parquet is damaged, or of another run"),
        (of_another_run, "answers.parquet is damaged, or of another run"),
        (lambda folder: (folder / HEADER).write_text('{"name": "ls'), "answers.json is damaged, or not"),
        (lambda folder: header(folder, temperature="hot"), "not of this version: temperature: Input should"),
        (lambda folder: header(folder, label_names=["bad", "good"]), "split validation: label_ids, row"),
        (lambda folder: header(folder, label_names=["a", "b", "c", "d"]), "has no column logit_3. It has: split, text"),
        (lambda folder: header(folder, rows={"test": 8}), "answers.json says {'test': 8}"),
    ],
)
def test_what_is_damaged_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(RequestError) as refused:
        read_answers(folder)
    assert message in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_write_that_breaks_off_leaves_nothing_that_can_be_taken_for_answers(folder, monkeypatch):
    def no_space(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", no_space)  # the header, which comes second
    with pytest.raises(OSError, match="No space"):
        write_answers(folder, {"test": answers("linear", rows=4)}, {})
    assert {path.name for path in folder.iterdir()} == {TABLE, HEADER}
    with pytest.raises(RequestError, match="of another run"):
        read_answers(folder)
