"""The vocabulary: the same on every run, for every script, and the same again after saving and loading."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.errors import DataError
from data.vocabulary import CLS, CLS_ID, CONTINUATION, PAD, PAD_ID, UNK, UNK_ID, Vocabulary, VocabularyConfig
from data.vocabulary import learn_vocabulary as learn

ROOT = Path(__file__).parents[1]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def small(size: int = 200, min_frequency: int = 1) -> VocabularyConfig:
    return VocabularyConfig(size=size, min_frequency=min_frequency)


def characters(vocabulary: Vocabulary) -> set[str]:
    return set("".join(piece.removeprefix(CONTINUATION) for piece in vocabulary.pieces[3:]))


# Learning


def test_the_special_pieces_come_first_and_padding_is_0():
    vocabulary = learn(["a good film"], small())
    assert vocabulary.pieces[:3] == (PAD, UNK, CLS) == ("[PAD]", "[UNK]", "[CLS]")
    assert (PAD_ID, UNK_ID, CLS_ID) == (0, 1, 2)


def test_words_seen_often_become_one_piece_each():
    vocabulary = learn(["splendid film", "splendid cast", "dreadful film"] * 3, small())
    assert {"splendid", "dreadful", "film", "cast"} <= set(vocabulary.pieces)


def test_no_piece_stands_twice():
    vocabulary = learn(["[CLS] [PAD] ## ##a a##a [UNK]", "the [CLS] again"], small())
    assert len(set(vocabulary.pieces)) == len(vocabulary)


def test_case_and_accents_are_gone():
    vocabulary = learn(["Amélie AMÉLIE amelie"], small())
    assert "amelie" in vocabulary.pieces
    assert characters(vocabulary) == set("amelie")


@pytest.mark.parametrize(
    ("word", "piece"),
    [
        pytest.param("λόγος", "λογοσ", id="final sigma"),
        pytest.param("groß", "gross", id="sharp s"),
        pytest.param("ﬁlm", "film", id="ligature"),
        pytest.param("ｆｉｌｍ", "film", id="fullwidth"),
        pytest.param("ᏣᎳᎩ", "ᏣᎳᎩ", id="Cherokee, whose folded case is the upper one"),
    ],
)
def test_words_are_learned_in_the_form_that_the_tokenizer_looks_up(word, piece):
    assert piece in learn([word] * 5, small()).pieces


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("这部电影很好看", id="Chinese"),
        pytest.param("фильм был скучным", id="Russian"),
        pytest.param("فيلم جميل جدا", id="Arabic"),
        pytest.param("หนังดีมาก", id="Thai"),
        pytest.param("सबसे अछ", id="Devanagari"),
        pytest.param("😀👍🎬", id="emoji"),
    ],
)
def test_every_character_of_any_script_gets_a_piece(text):
    folded = characters(learn([text], small()))
    # Marks above and below letters are stripped, as BERT does.
    letters = {character for character in text if character.isalpha() or ord(character) > 0x1F000}
    assert letters <= folded


def test_chinese_is_learned_character_by_character():
    pieces = learn(["很好看很好看", "不好看"] * 5, small()).pieces[3:]
    assert sorted(pieces) == sorted("很好看不")


def test_it_is_as_large_as_asked():
    texts = [f"word{i} thing{i * 7} other{i * 13}" for i in range(300)]
    assert len(learn(texts, small(size=150))) == 150


def test_every_character_is_kept_even_beyond_the_size():
    alphabet = [chr(0x4E00 + i) for i in range(300)]
    assert set(alphabet) <= set(learn([" ".join(alphabet)], small(size=100)).pieces)


def test_a_pair_seen_less_often_than_asked_is_not_merged():
    pieces = learn(["zq ab ab"], small(min_frequency=2)).pieces
    assert "ab" in pieces
    assert "zq" not in pieces
    assert {"z", "##q"} <= set(pieces)


def test_texts_may_be_a_generator():
    texts = ["a good film", "a bad film"]
    assert learn((text for text in texts), small()) == learn(texts, small())


def test_fresh_processes_learn_the_same(reviews):
    code = (
        "import sys; from data.vocabulary import VocabularyConfig, learn_vocabulary\n"
        "texts = open(sys.argv[1], encoding='utf-8').read().splitlines()\n"
        "print(learn_vocabulary(texts, VocabularyConfig(size=150)).fingerprint)"
    )
    fingerprints = {
        subprocess.run(
            [sys.executable, "-c", code, str(reviews)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(fingerprints) == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_any_texts_give_the_same_vocabulary_twice(texts):
    texts = [*texts, "a"]
    assert learn(texts, small()) == learn(texts, small())


@pytest.mark.parametrize("texts", [[], [""], [" \t", "\0\x07"], ["\u200b\u2028"]])
def test_texts_without_a_character_are_refused(texts):
    with pytest.raises(DataError, match="no piece to learn"):
        learn(texts, small())


@pytest.mark.parametrize("setting", [{"size": 99}, {"size": 200_001}, {"min_frequency": 0}, {"sise": 100}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValidationError, match=next(iter(setting))):
        VocabularyConfig(**setting)


# Keeping


def test_the_fingerprint_is_the_hash_of_the_pieces_in_order():
    vocabulary = Vocabulary((PAD, UNK, CLS, "good", "bad"))
    assert vocabulary.fingerprint == hashlib.sha256(b"[PAD]\n[UNK]\n[CLS]\ngood\nbad").hexdigest()
    assert vocabulary.fingerprint != Vocabulary((PAD, UNK, CLS, "bad", "good")).fingerprint


def test_it_is_saved_as_one_piece_a_line(tmp_path):
    Vocabulary((PAD, UNK, CLS, "good", "##ly", "看")).save(tmp_path / "vocab.txt")
    assert (tmp_path / "vocab.txt").read_bytes() == "[PAD]\n[UNK]\n[CLS]\ngood\n##ly\n看\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]


@pytest.mark.parametrize(
    "piece", ["a\u2028b", "a\u2029b", "a\x85b", "a\x0bb", "a\x1cb", "a\rb", "\ufeff", " ", "é", "😀"]
)
def test_odd_pieces_come_back_as_they_were(tmp_path, piece):
    vocabulary = Vocabulary((PAD, UNK, CLS, piece, "last"))
    vocabulary.save(tmp_path / "vocab.txt")
    loaded = Vocabulary.load(tmp_path / "vocab.txt")
    assert loaded == vocabulary
    assert loaded.fingerprint == vocabulary.fingerprint


@settings(max_examples=60, deadline=None, derandomize=True)
@given(texts=st.lists(ANY_TEXT, max_size=4))
def test_whatever_was_learned_comes_back_as_it_was(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "any-vocab.txt"
    vocabulary = learn([*texts, "a"], small())
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary


def test_a_save_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "vocab.txt"
    before = Vocabulary((PAD, UNK, CLS, "before"))
    before.save(path)
    with pytest.raises(UnicodeEncodeError):
        Vocabulary((PAD, UNK, CLS, *(f"piece{i}" for i in range(50_000)), "\ud800")).save(path)
    assert Vocabulary.load(path) == before


def test_who_reads_while_it_is_saved_sees_the_whole_old_file(tmp_path):
    path = tmp_path / "vocab.txt"
    Vocabulary((PAD, UNK, CLS, "old")).save(path)
    with path.open(encoding="utf-8") as reading:
        Vocabulary((PAD, UNK, CLS, "new")).save(path)
        assert reading.read().splitlines()[-1] == "old"
    assert Vocabulary.load(path).pieces[-1] == "new"


def test_a_vocabulary_without_the_special_pieces_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"starts with \[PAD\], \[UNK\], \[CLS\], not \('\[UNK\]'"):
        Vocabulary((UNK, PAD, CLS, "good"))
    (tmp_path / "words.txt").write_text("good\nbad\n", encoding="utf-8")
    with pytest.raises(DataError, match="starts with"):
        Vocabulary.load(tmp_path / "words.txt")
