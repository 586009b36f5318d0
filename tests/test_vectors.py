"""Word vectors from files, and those of pieces that are composed from them, worked by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from data.errors import DataError
from data.unlabelled import UnlabelledConfig, count_seen, load_unlabelled, text_hashes
from data.vectors import WordVectors, compose, read_word_vectors
from data.vocabulary import SPECIAL_PIECES, Vocabulary

GLOVE = "good 1.0 2\nbad -1 0.5e1\n"


@pytest.mark.parametrize("text", [GLOVE, f"2 2\n{GLOVE}", GLOVE + "good 9 9\n", GLOVE.replace("\n", " \n\n")])
@pytest.mark.parametrize("packed", [False, True])
def test_text_is_read_with_or_without_its_first_line(tmp_path: Path, text: str, packed: bool):
    path = tmp_path / ("vectors.txt.gz" if packed else "vectors.txt")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = read_word_vectors(path)
    assert found.words == ("good", "bad")
    np.testing.assert_array_equal(found.vectors, np.array([[1, 2], [-1, 5]], np.float32))


def test_an_array_is_read_with_the_words_beside_it(tmp_path: Path):
    np.save(tmp_path / "v.npy", np.ones((2, 3), np.float32))
    with pytest.raises(
        DataError, match=r"no file with its words, one a line: v\.npy\.words\.txt or v\.words\.txt or v\.txt"
    ):
        read_word_vectors(tmp_path / "v.npy")
    (tmp_path / "v.txt").write_text("good\nbad\n")
    assert read_word_vectors(tmp_path / "v.npy").words == ("good", "bad")
    (tmp_path / "v.txt").write_text("good\n")
    with pytest.raises(DataError, match=r"1 words, and v\.npy 2 vectors"):
        read_word_vectors(tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("good 1 2\nbad 1\n", r"line 2: 1 numbers where 2 are expected\. A line is a word and its 2 numbers"),
        ("good 1 2\nbad 1 x\n", r"line 2: 'x' is not a number"),
        ("good 1 nan\n", r"line 1: 'nan' is not a number"),
        ("good\n", r"line 1: 0 numbers"),
        ("2 2\n", "holds no word"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, said: str):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_word_vectors(path)


def test_pieces_are_composed_from_the_words_that_hold_them():
    vocabulary = Vocabulary((*SPECIAL_PIECES, "play", "##er", "##ing", "sing", "zebra"))
    words = WordVectors(("play", "player", "singer", "playing"), np.array([[1, 0], [3, 0], [5, 2], [0, 4]], np.float32))
    found = compose(words, vocabulary)
    by_piece = dict(zip(vocabulary.pieces, found.table.tolist(), strict=True))
    assert by_piece["play"] == [1, 0]  # a word itself, whatever else holds it
    assert by_piece["##er"] == [4, 1]  # the mean of player and singer
    assert by_piece["##ing"] == [0, 4]
    assert by_piece["sing"] == [5, 2]  # no word of the file, in singer alone
    assert (found.whole, found.composed, found.random) == (1, 3, 4)
    assert 0 < abs(by_piece["zebra"][0]) < 20


def test_texts_are_read_and_blank_ones_counted(tmp_path: Path):
    (tmp_path / "lines.txt").write_text("\ufeffone\n\n two \n", encoding="utf-8")
    lines = load_unlabelled(UnlabelledConfig(source=str(tmp_path / "lines.txt")))
    assert (lines.name, lines.texts, lines.read, lines.blank) == ("lines", ("one", " two "), 3, 1)
    (tmp_path / "rows.csv").write_text("body,n\none,1\n,2\n")
    rows = UnlabelledConfig(source=str(tmp_path / "rows.csv"), text_column="body")
    assert load_unlabelled(rows).texts == ("one",)
    with pytest.raises(DataError, match="no column 'text'"):
        load_unlabelled(UnlabelledConfig(source=str(tmp_path / "rows.csv")))
    with pytest.raises(DataError, match="no such text: 'nowhere'"):
        load_unlabelled(UnlabelledConfig(source="nowhere"))


def test_hashes_take_texts_as_equal_that_count_as_equal():
    hashes = text_hashes(["A  Film", "other"])
    assert len(hashes) == 2
    assert count_seen(["a film", "a film!", "OTHER"], hashes) == 2
