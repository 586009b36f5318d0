"""IMDB: 50,000 film reviews, half for training and half for test, of known films.

Source: Maas et al., 2011, "Learning Word Vectors for Sentiment Analysis",
https://ai.stanford.edu/~amaas/data/sentiment/
"""

import logging
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from data.errors import DataError
from data.sources.download import fetch, md5_of
from data.sources.rows import DataConfig, Progress, RawRows, make_rows

logger = logging.getLogger("valence")

URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"

REVIEW = re.compile(r"(?:^|/)(train|test)/(pos|neg)/(\d+)_\d+\.txt$")
UNLABELLED = re.compile(r"(?:^|/)train/unsup/(\d+)_\d+\.txt$")
URLS = re.compile(r"(?:^|/)(train|test)/urls_(pos|neg)\.txt$")
TITLE = re.compile(r"tt\d+")

Part = tuple[str, str]
"""Split and label: ("train", "pos")."""


def load_imdb(config: DataConfig, progress: Progress | None = None, *, url: str = URL, md5: str = MD5) -> RawRows:
    """Read the labelled reviews, in the order of split, label and number; a group is a film.

    The archive is `config.archive` (packed, or its unpacked folder), or else it is downloaded and kept
    below `config.cache`. It is read as a stream: nothing is unpacked, the unlabelled reviews are skipped.
    The archive's `<br />` are line breaks of the page a review stood on; they become line breaks.

    Raises:
        DataError: the download failed, or the archive is broken or of another layout.
    """
    archive = _find_archive(config, progress, url, md5)
    return make_rows("imdb", _frame(archive, _members(archive, _is_wanted)), archive.name, group_name="film")


def read_unlabelled_reviews(
    config: DataConfig, progress: Progress | None = None, *, url: str = URL, md5: str = MD5
) -> tuple[str, list[str]]:
    """Read the reviews without a label, in the order of their numbers; return the archive's name and the texts.

    Archive, line breaks and errors as for `load_imdb`.
    """
    archive = _find_archive(config, progress, url, md5)
    texts: dict[int, str] = {}
    for name, content in _members(archive, lambda name: UNLABELLED.search(name) is not None):
        match = UNLABELLED.search(name)
        assert match is not None  # as only such names are yielded
        texts[int(match[1])] = _decode(content, f"{archive.name}: {name}").replace("<br />", "\n")
    if not texts:
        raise DataError(f"{archive}: not in the layout of aclImdb_v1, it has no train/unsup/*.txt.")
    return archive.name, [texts[number] for number in sorted(texts)]


def _find_archive(config: DataConfig, progress: Progress | None, url: str, md5: str) -> Path:
    archive = config.archive
    if archive is None:
        return fetch(url, config.cache / "imdb" / "aclImdb_v1.tar.gz", md5, progress)
    if archive.is_file():
        _warn_of_another_archive(archive, md5)
    elif not archive.exists():
        raise DataError(f"no such archive or folder: {archive}")
    return archive


def _members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Go over name and content of the files that are wanted."""
    return _folder_members(archive, wanted) if archive.is_dir() else _archive_members(archive, wanted)


def _warn_of_another_archive(archive: Path, md5: str) -> None:
    found = md5_of(archive)
    if found != md5:
        logger.warning(
            "%s is not the official aclImdb_v1.tar.gz: its MD5 is %s, not %s. It is read all the same.",
            archive,
            found,
            md5,
        )


def _archive_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Go over the files in one pass over the stream."""
    try:
        with tarfile.open(archive, "r|*") as stream:
            for member in stream:
                if member.isfile() and wanted(member.name):
                    file = stream.extractfile(member)
                    assert file is not None  # as it is a regular file
                    yield member.name, file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: not a tar archive that can be read ({error}).") from error


def _folder_members(folder: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Go over the same files of an unpacked archive; the folder may be aclImdb or the one it is in."""
    root = folder / "aclImdb" if (folder / "aclImdb").is_dir() else folder
    for pattern in ("t*/urls_*.txt", "t*/pos/*.txt", "t*/neg/*.txt", "train/unsup/*.txt"):
        for path in root.glob(pattern):
            name = path.relative_to(root).as_posix()
            if wanted(name):
                yield name, path.read_bytes()


def _is_wanted(name: str) -> bool:
    return REVIEW.search(name) is not None or URLS.search(name) is not None


def _frame(archive: Path, members: Iterator[tuple[str, bytes]]) -> pd.DataFrame:
    reviews: dict[tuple[str, str, int], tuple[str, str]] = {}  # (split, label, number): (text, name)
    films: dict[Part, list[str]] = {}
    for name, content in members:
        text = _decode(content, f"{archive.name}: {name}")
        if match := REVIEW.search(name):
            split, label, number = match.groups()
            reviews[split, label, int(number)] = (text.replace("<br />", "\n"), name)
        elif match := URLS.search(name):
            films[match[1], match[2]] = _titles(text, f"{archive.name}: {name}")
    _check_layout(archive, {key[:2] for key in reviews}, set(films))
    rows = [
        (name, text, label, split, _film(films[split, label], number, f"{archive.name}: {name}"))
        for (split, label, number), (text, name) in sorted(reviews.items())
    ]
    frame = pd.DataFrame(rows, columns=["place", "text", "label", "split", "group"], dtype=object)
    # Sorted by name, test comes before train; the order within a split is all that counts.
    return frame.set_index("place")


def _check_layout(archive: Path, reviews: set[Part], films: set[Part]) -> None:
    parts = [(split, label) for split in ("train", "test") for label in ("pos", "neg")]
    lacking = [f"{split}/{label}/*.txt" for split, label in parts if (split, label) not in reviews]
    lacking += [f"{split}/urls_{label}.txt" for split, label in parts if (split, label) not in films]
    if lacking:
        raise DataError(f"{archive}: not in the layout of aclImdb_v1, it has no {', no '.join(lacking)}.")


def _titles(text: str, place: str) -> list[str]:
    """Return the film of each line: line i is the page of the review with number i."""
    titles = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = TITLE.search(line)
        if match is None:
            raise DataError(f"{place}, line {number}: {line[:60]!r} names no film (.../title/tt0123456/...).")
        titles.append(match[0])
    return titles


def _film(titles: list[str], number: int, place: str) -> str:
    if number >= len(titles):
        raise DataError(f"{place}: review {number} has no line in the urls file of {len(titles)} lines.")
    return titles[number]


def _decode(content: bytes, place: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 (byte {error.start:,}).") from error
