"""Files of texts to files of answers: the same rows, streamed, in any of the formats, whole or not at all."""

import datetime
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from app.errors import RequestError
from app.prediction_files import plan_file, predict_file
from app.row_writers import open_writer
from app.serving.predictions import Predictions
from data.errors import DataError


class EvenOdd:
    """Labels a text by whether its length is even; keeps what it was asked."""

    label_names = ("even", "odd")

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> Predictions:
        self.calls.append(list(texts))
        odd = np.array([len(text) % 2 for text in texts], dtype=int)
        probabilities = np.where(odd[:, None] == [0, 1], np.float32(0.9), np.float32(0.1))
        labels = [self.label_names[label_id] for label_id in odd]
        return Predictions(labels, probabilities.max(axis=1), probabilities, self.label_names)


EVEN = {"label": "even", "confidence": 0.9, "probability_even": 0.9, "probability_odd": 0.1}
ODD = {"label": "odd", "confidence": 0.9, "probability_even": 0.1, "probability_odd": 0.9}


def ignore(done: int, total: int | None) -> None:
    """A progress that nobody looks at."""


def answer(source: Path, target: Path, **options: Any) -> int:
    return predict_file(EvenOdd(), plan_file(source, target, **options), ignore)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(path: Path) -> list[dict[str, Any]]:
    """Read a table with a library that is not ours."""
    if path.suffix == ".jsonl":
        return read_json_lines(path)
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    separator = "\t" if path.suffix == ".tsv" else ","
    return pd.read_csv(path, sep=separator, dtype={"id": str}, keep_default_na=False).to_dict("records")


# Formats


@pytest.mark.parametrize("target_suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("source_suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_goes_into_every_other(tmp_path: Path, source_suffix: str, target_suffix: str) -> None:
    rows = [{"id": "007", "text": "odd"}, {"id": "008", "text": 'a "quoted",\n\tline'}, {"id": "NA", "text": ""}]
    source = tmp_path / f"in{source_suffix}"
    frame = pd.DataFrame(rows)
    if source_suffix == ".parquet":
        frame.to_parquet(source)
    elif source_suffix == ".jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_csv(source, index=False, sep="\t" if source_suffix == ".tsv" else ",")

    assert answer(source, tmp_path / f"out{target_suffix}") == 3
    answered = read(tmp_path / f"out{target_suffix}")
    for row, original, expected in zip(answered, rows, [ODD, ODD, EVEN], strict=True):
        assert row == pytest.approx({**original, **expected}, abs=1e-7)
        assert list(row) == [*original, *expected]


def test_csv_stays_as_it_was_down_to_the_digits(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", '\ufeffid,text,price\r\n007,"a, b",1.50\r\n\r\n1e3,né,\r\n')
    answer(source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().decode() == (
        "id,text,price,label,confidence,probability_even,probability_odd\n"
        '007,"a, b",1.50,even,0.9,0.9,0.1\n'
        "1e3,né,,even,0.9,0.9,0.1\n"
    )


def test_a_lone_carriage_return_in_a_field_is_still_one_row_when_read_again(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "a\\rb"}\n{"text": "c\\r\\nd"}\n')
    answer(source, tmp_path / "once.csv")
    answer(tmp_path / "once.csv", tmp_path / "twice.jsonl")
    assert [row["text"] for row in read_json_lines(tmp_path / "twice.jsonl")] == ["a\rb", "c\r\nd"]


def test_json_lines_keep_nested_values_missing_keys_and_large_numbers(tmp_path: Path) -> None:
    rows = [
        {"text": "日本", "meta": {"tags": ["a", {"b": None}]}, "big": 2**70},
        {"extra": 1.25, "text": "odd", "ok": True},
    ]
    source = write(tmp_path / "in.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    answer(source, tmp_path / "out.ndjson")
    assert read_json_lines(tmp_path / "out.ndjson") == [{**rows[0], **EVEN}, {**rows[1], **ODD}]


def test_half_a_surrogate_pair_goes_through_json_lines_unharmed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "\\ud83d!"}\n')
    answer(source, tmp_path / "out.jsonl")
    assert read_json_lines(tmp_path / "out.jsonl") == [{"text": "\ud83d!", **EVEN}]


def test_parquet_keeps_the_type_of_every_column(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "text": pyarrow.array(["odd", None], pyarrow.large_string()),
            "stars": pyarrow.array([5, None], pyarrow.int8()),
            "film": pyarrow.array(["Up", "Heat"]).dictionary_encode(),
            "seen": pyarrow.array([1, 1234567891], pyarrow.timestamp("ns", "UTC")),
            "price": pyarrow.array([Decimal("1.20"), None]),
            "tags": pyarrow.array([[{"name": "a"}], None]),
            "counts": pyarrow.array([[("k", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            "thumb": pyarrow.array([b"\xff", None]),
            "nothing": pyarrow.nulls(2),
        }
    ).replace_schema_metadata({"origin": "a test"})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    answer(tmp_path / "in.parquet", tmp_path / "out.parquet")
    answered = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert answered.select(table.column_names).equals(table)
    assert answered.schema.metadata == {b"origin": b"a test"}
    assert answered.schema.field("label").type == pyarrow.string()
    assert answered.schema.field("probability_odd").type == pyarrow.float32()
    assert answered.column("label").to_pylist() == ["odd", "even"]


def test_values_that_json_and_csv_lack_are_spelt_out(tmp_path: Path) -> None:
    row = {
        "text": "odd",
        "seen": datetime.datetime(2024, 2, 3, 4, 5),
        "day": datetime.date(2024, 2, 3),
        "price": Decimal("1.20"),
        "thumb": b"\xff",
        "nan": float("nan"),
        "tags": ["a", "ü"],
        "ok": True,
        "none": None,
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "in.parquet")
    answer(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    spelt = {
        "text": "odd",
        "seen": "2024-02-03T04:05:00",
        "day": "2024-02-03",
        "price": "1.20",
        "thumb": "/w==",
        "nan": None,
        "tags": ["a", "ü"],
        "ok": True,
        "none": None,
    }
    assert read_json_lines(tmp_path / "out.jsonl") == [{**spelt, **ODD}]
    answer(tmp_path / "in.parquet", tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t") == [
        *("odd", "2024-02-03T04:05:00", "2024-02-03", "1.20", "/w==", "", '"[""a"", ""ü""]"', "true", ""),
        *("odd", "0.9", "0.1", "0.9"),
    ]


def test_json_lines_become_parquet_with_types_that_hold_all_rows(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": i} for i in range(2000)]
    rows += [{"text": "a", "n": 0.5, "late": {"x": 1}}, {"text": "a", "late": {"y": "z"}}]
    source = write(tmp_path / "in.jsonl", "\n".join(map(json.dumps, rows)))
    answer(source, tmp_path / "out.parquet")
    answered = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert answered.schema.field("n").type == pyarrow.float64()
    assert answered.column("n").to_pylist() == [*range(2000), 0.5, None]
    assert answered.column("late").to_pylist()[-3:] == [None, {"x": 1, "y": None}, {"x": None, "y": "z"}]


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "a", "n": 1}, {"text": "a", "n": "one"}],
        [{"text": "a", "n": 2**70}],
        [{"text": "a", "n": {}}],
        [{"text": "\ud83d"}],
    ],
)
def test_values_that_have_no_parquet_type_are_refused_before_anything_is_asked(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    source = write(tmp_path / "in.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"in\.jsonl cannot become a Parquet file .* Write \.jsonl instead"):
        plan_file(source, tmp_path / "out.parquet")


def test_a_number_that_loses_digits_in_parquet_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", "\n".join(['{"text": "a", "n": 0.5}'] * 2048 + [f'{{"n": {2**60 + 1}}}']))
    with pytest.raises(DataError, match=r"has no place in a Parquet file .* Write \.jsonl instead"):
        answer(source, tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# Columns


def test_a_column_that_is_there_already_is_kept_and_the_answers_is_called_predicted(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text,label,predicted_label,probability_odd\nodd,good,bad,x\n")
    answer(source, tmp_path / "out.jsonl")
    assert read_json_lines(tmp_path / "out.jsonl") == [
        {
            **{"text": "odd", "label": "good", "predicted_label": "bad", "probability_odd": "x"},
            **{"predicted_predicted_label": "odd", "confidence": 0.9},
            **{"probability_even": 0.1, "predicted_probability_odd": 0.9},
        }
    ]


def test_a_key_of_a_later_line_is_a_column_that_is_there(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", '{"text": "odd"}\n{"text": "odd", "label": "mine"}\n')
    answer(source, tmp_path / "out.jsonl")
    first, second = read_json_lines(tmp_path / "out.jsonl")
    assert (first["predicted_label"], "label" in first) == ("odd", False)
    assert (second["predicted_label"], second["label"]) == ("odd", "mine")


def test_a_null_text_gets_the_answer_to_the_empty_text_and_stays_null(tmp_path: Path) -> None:
    lines = ['{"text": null}', '{"id": 2}', '{"text": ""}', '{"text": " "}', '{"text": NaN}']
    source = write(tmp_path / "in.jsonl", "\n".join(lines))
    classifier = EvenOdd()
    predict_file(classifier, plan_file(source, tmp_path / "out.jsonl"), ignore)
    assert classifier.calls == [["", "", "", " ", ""]]
    assert read_json_lines(tmp_path / "out.jsonl") == [
        {"text": None, **EVEN},
        {"id": 2, **EVEN},
        {"text": "", **EVEN},
        {"text": " ", **ODD},
        {"text": None, **EVEN},
    ]


def test_the_column_with_the_texts_can_be_named(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text,review\nignored,odd\n")
    assert plan_file(source, tmp_path / "out.csv", "review").text_column == "review"
    answer(source, tmp_path / "out.jsonl", text_column="review")
    assert read_json_lines(tmp_path / "out.jsonl") == [{"text": "ignored", "review": "odd", **ODD}]


# Streaming


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_are_asked_and_written_chunk_by_chunk(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"id": [str(i) for i in range(5000)], "text": ["x" * (i % 7) for i in range(5000)]})
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(source)
    elif suffix == ".jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_csv(source, index=False)
    classifier = EvenOdd()
    progress: list[tuple[int, int | None]] = []

    plan = plan_file(source, target)
    assert (plan.count, classifier.calls) == (5000, [])
    assert predict_file(classifier, plan, lambda done, total: progress.append((done, total))) == 5000

    assert [len(texts) for texts in classifier.calls] == [2048, 2048, 904]
    assert progress == [(2048, 5000), (4096, 5000), (5000, 5000)]
    assert [row["id"] for row in read(target)] == frame["id"].tolist()
    assert [row["label"] for row in read(target)] == [["even", "odd"][i % 7 % 2] for i in range(5000)]


def test_a_large_batch_is_given_whole(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text\n" + "a\n" * 4500)
    classifier = EvenOdd()
    predict_file(classifier, plan_file(source, tmp_path / "out.csv"), ignore, batch_size=3000)
    assert [len(texts) for texts in classifier.calls] == [3000, 1500]


def test_parquet_of_many_chunks_has_few_row_groups(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", "text\n" + "a\n" * 5000)
    answer(source, tmp_path / "out.parquet")
    assert pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 1


# Whole or not at all


@pytest.mark.parametrize("failure", [RequestError("the server went away"), KeyboardInterrupt()])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path, suffix: str, failure: BaseException) -> None:
    class FailsLater(EvenOdd):
        def predict(self, texts: Sequence[str], batch_size: int | None = None) -> Predictions:
            if self.calls:
                raise failure
            return super().predict(texts, batch_size)

    source = write(tmp_path / "in.csv", "text\n" + "a\n" * 3000)
    plan = plan_file(source, tmp_path / f"out{suffix}")
    with pytest.raises(type(failure)):
        predict_file(FailsLater(), plan, ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_the_target_is_there_only_when_it_is_whole(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", "text\n" + "a\n" * 3000), tmp_path / "out.csv"
    was_there: list[bool] = []
    predict_file(EvenOdd(), plan_file(source, target), lambda done, total: was_there.append(target.exists()))
    assert (was_there, target.exists()) == ([False, False], True)


def test_a_target_that_is_there_is_replaced_only_on_demand(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", "text\nodd\n"), write(tmp_path / "out.csv", "precious")
    with pytest.raises(RequestError, match=r"out\.csv is there already: .*--overwrite"):
        plan_file(source, target)
    assert target.read_text() == "precious"
    answer(source, target, overwrite=True)
    assert target.read_text().startswith("text,label")


def link_to(source: Path, link: Path) -> Path:
    link.symlink_to(source)
    return link


@pytest.mark.parametrize("same", [lambda source: source, lambda source: link_to(source, source.parent / "link.csv")])
def test_the_source_is_never_written_over(tmp_path: Path, same: Callable[[Path], Path]) -> None:
    source = write(tmp_path / "in.csv", "text\nodd\n")
    with pytest.raises(RequestError, match="is the file that is read"):
        plan_file(source, same(source), overwrite=True)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out.xlsx", "cannot write a .xlsx. Files that can be written: .csv, .tsv, .jsonl"),
        ("out", "cannot write a file without a suffix"),
        ("nowhere/out.csv", "there is no folder"),
        ("folder.csv", "is a folder: name a file"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(RequestError) as refused:
        plan_file(write(tmp_path / "in.csv", "text\nodd\n"), tmp_path / target, overwrite=True)
    assert message in str(refused.value)


# Sources that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.csv",
            "id,review\n1,fine\n",
            "has no column 'text'. It has: id, review. Did you mean --text-column review?",
        ),
        ("t.jsonl", '{"txet": "a"}\n', "has no column 'text'. It has: txet. Did you mean --text-column txet?"),
        ("t.xlsx", "x", "cannot read a .xlsx. Files that can be read: .csv, .tsv, .jsonl"),
        ("t.csv", "", "t.csv is empty."),
        ("t.csv", "\n\n", "t.csv is empty."),
        ("t.csv", "id,text\n", "t.csv has no rows."),
        ("t.jsonl", "\n", "t.jsonl has no rows."),
        ("t.csv", b"text\nfine\ncaf\xe9\n", "t.csv, line 3: not UTF-8 (byte 0xe9)"),
        ("t.jsonl", b'{"text": "caf\xe9"}\n', "t.jsonl, line 1: not UTF-8 (byte 0xe9)"),
        ("t.csv", "id,text\n1,a,b\n", "t.csv, line 2: 3 fields where the header has 2 (id, text)"),
        ("t.csv", 'text\n"a\nb"\n"c', "t.csv, line 4: broken quotes"),
        ("t.csv", "text,text\na,b\n", "t.csv, line 1: column 'text' stands there more than once"),
        ("t.jsonl", '{"text": "a"}\n{"text": "b"\n', "t.jsonl, line 2: not JSON (Expecting ',' delimiter, column 13)"),
        ("t.jsonl", '["a"]\n', 't.jsonl, line 1: ["a"] is not an object'),
        ("t.jsonl", '{"text": "a"}\n\n{"text": 5}\n', "t.jsonl, line 3: column 'text' holds 5 (int)"),
        ("t.parquet", "no parquet", "t.parquet: not a Parquet file that can be read"),
    ],
)
def test_a_source_that_cannot_be_read_says_where_and_why(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    source = write(tmp_path / name, content)
    with pytest.raises(DataError) as refused:
        plan_file(source, tmp_path / "out.jsonl")
    assert message in str(refused.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*t\.csv"):
        plan_file(tmp_path / "t.csv", tmp_path / "out.csv")


def test_parquet_with_texts_of_another_type_or_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": [1.5]}), tmp_path / "numbers.parquet")
    with pytest.raises(DataError, match=r"numbers\.parquet, row 1: column 'text' holds 1\.5 \(float\)"):
        plan_file(tmp_path / "numbers.parquet", tmp_path / "out.csv")
    twice = pyarrow.Table.from_arrays([pyarrow.array(["a"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"twice\.parquet: column 'text' stands there more than once"):
        plan_file(tmp_path / "twice.parquet", tmp_path / "out.csv")


def test_old_line_ends_and_records_over_several_lines_are_read(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", 'id,text\r1,"two\rlines"\r2,odd\r')
    answer(source, tmp_path / "out.jsonl")
    assert [row["text"] for row in read_json_lines(tmp_path / "out.jsonl")] == ["two\rlines", "odd"]


def test_a_number_of_numpy_is_written_like_any_other(tmp_path):
    with open_writer(tmp_path / "a.csv", ["x", "y"], None) as write:
        write([{"x": np.float64(0.1), "y": float("nan")}])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "x,y\n0.1,\n"
