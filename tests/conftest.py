"""What every test file may use: a tiny data set, and one trained experiment that many look at."""

from __future__ import annotations

import functools
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:  # pytest-xdist's first process, which runs no test, reads this file too: it need not load TensorFlow
    from app.comparison import Comparison
    from app.config import RunConfig
    from app.experiment import Outcome
    from app.fitting import EpochReport, History
    from app.training import Material, TrainedRun

GOOD = ["great", "superb", "moving", "funny", "clever"]
BAD = ["dull", "awful", "tedious", "clumsy", "lifeless"]
NOUNS = ["film", "story", "cast", "ending", "script"]


def write_reviews(path: Path, rows: int = 240, seed: int = 0) -> Path:
    """Write a CSV of made-up reviews with the columns review, stars and film; the adjective decides the stars."""
    chance = random.Random(seed)
    lines = ["review,stars,film"]
    for row in range(rows):
        stars = row % 2
        adjectives = GOOD if stars else BAD
        noun, other = chance.sample(NOUNS, 2)
        text = f"The {noun} is {chance.choice(adjectives)} and the {other} is {chance.choice(adjectives)} no {row}"
        lines.append(f"{text},{stars},film {row // 4}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class _ByFile(LoadFileScheduling):
    """A file stays with one worker, and all files that look at `experiment` with the same: it trains for a minute.

    They are a third of the work, so more than three workers do not make the tests end sooner.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "experiment" if _looks_at_the_experiment(self.config.rootpath / file) else file


@functools.cache
def _looks_at_the_experiment(file: Path) -> bool:
    return re.search(r"^def \w+\([^)]*\bexperiment\b", file.read_text(encoding="utf-8"), re.MULTILINE) is not None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Hand out tests so that what takes long to make is made once; `--dist` stays free to say otherwise."""
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _default_store():
    """Take back the tracking URI after a test: mlflow.set_tracking_uri writes it into the environment."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CSV file of two classes that any model learns in seconds."""
    return write_reviews(tmp_path_factory.mktemp("reviews") / "reviews.csv")


class Silent:
    """A reporter that only remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.validation_losses: dict[str, list[float]] = {}

    def doing(self, what: str) -> None:
        """What takes a while is not remembered."""

    def downloaded(self, done: int, total: int | None) -> None:
        self.told.append("downloaded")

    def prepared(self, material: Material) -> None:
        self.told.append("prepared")

    def epoch(self, report: EpochReport) -> None:
        if report.validation_loss is not None:
            self.validation_losses.setdefault(report.model_name, []).append(report.validation_loss)

    def fitted(self, name: str, history: History) -> None:
        self.told.append(f"fitted {name}")

    def failed(self, name: str, reason: str) -> None:
        self.told.append(f"failed {name}")

    def compared(self, material: Material, comparison: Comparison, notes: Sequence[str]) -> None:
        self.told.append("compared")

    def exported(self, outcome: Outcome) -> None:
        self.told.append("exported")


@dataclass(frozen=True)
class Experiment:
    """A finished experiment: its artifacts folder, what came of it, and what its reporter was told."""

    artifacts: Path
    outcome: Outcome
    reporter: Silent

    def run(self, name: str) -> TrainedRun:
        (candidate,) = (one for one in self.outcome.candidates if one.run.name == name)
        return candidate.run


SMALL = ("vocabulary.size=200", "pipeline.sequence_length=24", "pipeline.batch_size=16")
NGRAMS = ("model.wide_buckets=1024", "model.wide_epochs=2")
SMALLER = {
    "linear": ("model.num_buckets=1024", "model.epochs=2"),
    # How often its n-grams pass over the rows is left to the number of these: tests/test_passes.py looks at it.
    "lstm": ("model.embedding_dim=16", "model.hidden_dim=8", "model.epochs=2", "model.wide_buckets=1024"),
    "transformer": (
        "model.embedding_dim=16",
        "model.intermediate_dim=16",
        "model.num_heads=2",
        "model.epochs=2",
        *NGRAMS,
    ),
}


def small_config(model_name: str, reviews: Path, *overrides: str) -> RunConfig:
    """The configuration of a model that trains on `reviews` in a second or two."""
    from app.config import resolve_config

    data = {"source": str(reviews), "text_column": "review", "label_column": "stars", "group_column": "film"}
    return resolve_config(
        model_name, {}, [*SMALL, *SMALLER.get(model_name, ("model.epochs=2", *NGRAMS)), *overrides], data
    )


@pytest.fixture(scope="session")
def experiment(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """The default models trained on `reviews`, tracked in a SQLite store, the champion exported."""
    from app.experiment import run_experiment
    from models import DEFAULT_MODELS

    artifacts = tmp_path_factory.mktemp("experiment") / "artifacts"
    reporter = Silent()
    outcome = run_experiment([small_config(name, reviews) for name in DEFAULT_MODELS], artifacts, reporter)
    return Experiment(artifacts, outcome, reporter)
