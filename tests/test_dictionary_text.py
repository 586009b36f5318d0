"""The text that dictionaries become, read from files in the formats of WordNet and dictd."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.dictionary_text import foldoc_texts, gcide_texts, wordnet_texts

NOUNS = """\
  1 This software and database is being provided to you
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which exists
00000002 05 n 02 kangaroo 0 big_jumper 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | a leaping marsupial
00000003 18 n 01 Skippy 0 002 #m 00000001 n 0000 @i 00000002 n 0000 | a famous one; "Skippy came"
"""
ADJECTIVES = """\
00000001 00 a 01 galore(ip) 0 001 & 00000002 s 0000 | in great numbers
00000002 00 s 01 able 0 000 | having the means
"""
GCIDE = """\
00-database-info
   This file was converted from the original
Kangaroo \\Kan`ga*roo"\\ (k[a^]n`g[.a]*r[=oo]"), n. [Said to be the native name.]
   Any one of numerous species of jumping {marsupials}.
   [1913 Webster]

Kan \\Kan\\
   See
"""


@pytest.fixture
def share(tmp_path: Path) -> Path:
    wordnet, dictd = tmp_path / "share" / "wordnet", tmp_path / "share" / "dictd"
    wordnet.mkdir(parents=True)
    dictd.mkdir()
    for part, lines in {"noun": NOUNS, "verb": "", "adj": ADJECTIVES, "adv": ""}.items():
        (wordnet / f"data.{part}").write_text(lines, encoding="latin-1")
    (dictd / "gcide.dict.dz").write_bytes(gzip.compress(GCIDE.encode()))
    (dictd / "foldoc.dict.dz").write_bytes(gzip.compress(b"compiler\n   A program that translates {source} code.\n"))
    return tmp_path / "share"


def test_a_sense_of_wordnet_is_its_words_its_gloss_and_what_it_is_a_kind_of(share):
    assert list(wordnet_texts(share / "wordnet")) == [
        "entity: that which exists",
        "kangaroo, big jumper: a leaping marsupial . kangaroo is a entity",
        'Skippy: a famous one; "Skippy came" . Skippy is a kangaroo, a kind of entity',
        "galore: in great numbers",
        "able: having the means",
    ]


def test_an_entry_of_a_dictionary_is_one_line_without_pronunciation_sources_and_links(share):
    (text,) = gcide_texts(share / "dictd" / "gcide.dict.dz")
    assert text == ("Kangaroo , n. [Said to be the native name.] Any one of numerous species of jumping marsupials.")
    assert list(foldoc_texts(share / "dictd" / "foldoc.dict.dz")) == ["compiler A program that translates source code."]


def test_the_script_writes_all_of_them_one_a_line(share, tmp_path):
    output = tmp_path / "dictionaries.txt"
    command = [sys.executable, "benchmarks/dictionary_text.py", str(share), str(output)]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert told.stdout.startswith("7 texts, ")
    assert len(output.read_text(encoding="utf-8").splitlines()) == 7
