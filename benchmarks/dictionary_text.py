"""Two dictionaries and a computing glossary as one text a line, for `valence pretrain`: the world's names and things.

    apt-get download wordnet-base dict-gcide dict-foldoc
    for package in *.deb; do dpkg -x "$package" dictionaries; done
    python benchmarks/dictionary_text.py dictionaries/usr/share dictionaries.txt

WordNet 3.0 (Princeton University), the GNU Collaborative International Dictionary of English and the Free On-line
Dictionary of Computing, as Debian packages them; each has a licence of its own, in the package. A sense of WordNet
becomes its words, its gloss, and up to four steps of what it is a kind of. README.md tells what it is for.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
STEPS_UP = 4
SHORTEST = 21
"""Characters: what is shorter is a cross-reference or a heading without an entry."""

Sense = tuple[str, str]
"""Offset in its file, and part of speech."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("share", type=Path, help="folder that holds wordnet/ and dictd/")
    parser.add_argument("output", type=Path, help="text file to write, one entry a line")
    arguments = parser.parse_args()
    wordnet, dictd = arguments.share / "wordnet", arguments.share / "dictd"
    try:
        texts = [
            *wordnet_texts(wordnet),
            *gcide_texts(dictd / "gcide.dict.dz"),
            *foldoc_texts(dictd / "foldoc.dict.dz"),
        ]
        _write_whole(arguments.output, "\n".join(texts) + "\n")
    except (OSError, EOFError) as error:
        parser.error(f"{error}; {arguments.share} must hold what wordnet-base, dict-gcide and dict-foldoc put there")
    print(f"{len(texts):,} texts, {sum(len(text.split()) for text in texts):,} words in {arguments.output}")


def _write_whole(file: Path, text: str) -> None:
    """Write aside and rename: half a text looks like a whole one to whoever learns from it."""
    aside = file.with_name(f"{file.name}.part")
    with aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    aside.replace(file)


@dataclass(frozen=True)
class Synset:
    """Words of one sense."""

    words: list[str]
    gloss: str
    above: list[Sense]
    """What it is a kind or an instance of; the first is followed."""


def wordnet_texts(folder: Path) -> Iterator[str]:
    """Return one text a sense: `reeve: female ruff . reeve is a ruff, a kind of sandpiper, a kind of ...`."""
    synsets: dict[Sense, Synset] = {}
    for part in PARTS_OF_SPEECH:
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith("  "):  # the licence, at the top of each file, is indented
                sense, synset = _read_synset(line)
                synsets[sense] = synset
    for sense, synset in synsets.items():
        text = f"{', '.join(synset.words)}: {synset.gloss}"
        kinds = _kinds(sense, synsets)
        yield f"{text} . {synset.words[0]} is a {', a kind of '.join(kinds)}" if kinds else text


def _read_synset(line: str) -> tuple[Sense, Synset]:
    """Read a line of the format that `man 5 wndb` describes."""
    fields, _, gloss = line.partition(" | ")
    offset, _, kind, count, *rest = fields.split()
    end = 2 * int(count, 16)  # of the words, each with a number; then a count of pointers; a verb's frames come last
    words = [word.split("(")[0].replace("_", " ") for word in rest[:end:2]]
    pointers = rest[end + 1 : end + 1 + 4 * int(rest[end])]
    above = [
        (target, _part(part))
        for symbol, target, part in zip(pointers[::4], pointers[1::4], pointers[2::4], strict=True)
        if symbol in ("@", "@i")
    ]
    return (offset, _part(kind)), Synset(words, gloss.strip(), above)


def _part(letter: str) -> str:
    return "a" if letter == "s" else letter  # satellites of adjectives are in the adjectives' file


def _kinds(sense: Sense, synsets: dict[Sense, Synset]) -> list[str]:
    found: list[str] = []
    while synsets[sense].above and len(found) < STEPS_UP:
        sense = synsets[sense].above[0]
        found.append(synsets[sense].words[0])
    return found


def gcide_texts(file: Path) -> Iterator[str]:
    """Return one text an entry, without its sources (and other brackets that hold a year) and how it is pronounced."""
    for entry in _entries(file):
        text = re.sub(r"\[(?:PJC|Webster.*?|[^\]]*\d{4}[^\]]*|WordNet 1\.5)(?:\s*\+PJC)?\]", "", entry)
        text = re.sub(r"\\[^\\]*\\(?:\s*\([^)]*\))?", "", text)
        yield from _on_one_line(text)


def foldoc_texts(file: Path) -> Iterator[str]:
    """Return one text an entry."""
    for entry in _entries(file):
        yield from _on_one_line(entry)


def _entries(file: Path) -> Iterator[str]:
    """Read a dictd database: an entry begins at a line's start, and what follows is indented."""
    database = gzip.decompress(file.read_bytes()).decode("utf-8", errors="replace")
    for entry in re.split(r"\n(?=\S)", database):
        if not entry.startswith("00-database"):  # what the database says of itself
            yield entry


def _on_one_line(text: str) -> Iterator[str]:
    """Return a text without the braces of its links, unless hardly any is left."""
    line = " ".join(text.replace("{", "").replace("}", "").split())
    if len(line) >= SHORTEST:
        yield line


if __name__ == "__main__":
    main()
