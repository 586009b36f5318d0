"""The text that dictionaries become, read from files in the formats of WordNet and dictd."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from dictionary_text import foldoc_texts, gcide_texts, wordnet_texts  # noqa: E402

NOUNS = """\
  1 This software and database is being provided to you
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which exists
00000002 05 n 01 being 0 001 @ 00000001 n 0000 | what lives
00000003 05 n 01 animal 0 001 @ 00000002 n 0000 | what moves
00000004 05 n 01 mammal 0 001 @ 00000003 n 0000 | what suckles
00000005 05 n 02 kangaroo 0 big_jumper 0 003 ~ 00000006 n 0000 @ 00000004 n 0000 @ 00000001 n 0000 | it leaps
00000006 18 n 01 Skippy 0 002 #m 00000001 n 0000 @i 00000005 n 0000 | a famous one; "Skippy came"
"""
VERBS = """\
00000001 29 v 01 move 0 000 02 + 01 00 + 09 00 | change place
00000002 29 v 02 leap 0 jump 2 001 @ 00000001 v 0000 02 + 02 00 + 22 00 | go up
"""
ADJECTIVES = """\
00000001 00 a 01 galore(ip) 0 001 & 00000002 s 0000 | in great numbers
00000002 00 s 01 able 0 000 | having the means
"""
GCIDE = """\
00-database-info
   This file was converted from the original
Kangaroo \\Kan`ga*roo"\\ (k[a^]n`g[.a]*r[=oo]"), n. [Said to be native.]
   Any one of numerous species of jumping {marsupials}. [1913 Webster]
   [PJC] [WordNet 1.5 +PJC] [Webster Suppl.]

Kan \\Kan\\
   See
"""
FOLDOC = """\
00-database-short The dictionary of this test
compiler
   A program that translates {source} code.
"""


@pytest.fixture
def share(tmp_path: Path) -> Path:
    wordnet, dictd = tmp_path / "share" / "wordnet", tmp_path / "share" / "dictd"
    wordnet.mkdir(parents=True)
    dictd.mkdir()
    for part, lines in {"noun": NOUNS, "verb": VERBS, "adj": ADJECTIVES, "adv": ""}.items():
        (wordnet / f"data.{part}").write_text(lines, encoding="latin-1")
    for name, database in {"gcide": GCIDE, "foldoc": FOLDOC}.items():
        (dictd / f"{name}.dict.dz").write_bytes(gzip.compress(database.encode()))
    return tmp_path / "share"


def run(share: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "dictionary_text.py"), str(share), str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_sense_of_wordnet_is_its_words_its_gloss_and_four_steps_of_what_it_is_a_kind_of(share):
    assert list(wordnet_texts(share / "wordnet")) == [
        "entity: that which exists",
        "being: what lives . being is a entity",
        "animal: what moves . animal is a being, a kind of entity",
        "mammal: what suckles . mammal is a animal, a kind of being, a kind of entity",
        "kangaroo, big jumper: it leaps . kangaroo is a mammal, a kind of animal, a kind of being, a kind of entity",
        'Skippy: a famous one; "Skippy came" . '
        "Skippy is a kangaroo, a kind of mammal, a kind of animal, a kind of being",
        "move: change place",
        "leap, jump: go up . leap is a move",
        "galore: in great numbers",
        "able: having the means",
    ]


def test_an_entry_of_a_dictionary_is_one_line_without_pronunciation_sources_and_links(share):
    (text,) = gcide_texts(share / "dictd" / "gcide.dict.dz")
    assert text == "Kangaroo , n. [Said to be native.] Any one of numerous species of jumping marsupials."
    assert list(foldoc_texts(share / "dictd" / "foldoc.dict.dz")) == ["compiler A program that translates source code."]


def test_the_script_writes_all_of_them_one_a_line(share, tmp_path):
    output = tmp_path / "dictionaries.txt"
    told = run(share, output)
    assert told.returncode == 0
    assert told.stdout.startswith("12 texts, ")
    assert len(output.read_text(encoding="utf-8").splitlines()) == 12
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["dictionaries.txt"]


def test_a_folder_without_a_dictionary_is_refused_by_name_and_nothing_is_written(share, tmp_path):
    (share / "dictd" / "gcide.dict.dz").write_bytes(gzip.compress(GCIDE.encode())[:40])
    told = run(share, tmp_path / "dictionaries.txt")
    assert told.returncode == 2
    assert "must hold what wordnet-base, dict-gcide and dict-foldoc put there" in told.stderr
    (share / "dictd" / "gcide.dict.dz").unlink()
    told = run(share, tmp_path / "dictionaries.txt")
    assert told.returncode == 2
    assert "gcide.dict.dz" in told.stderr
    assert not list(tmp_path.glob("dictionaries*"))
