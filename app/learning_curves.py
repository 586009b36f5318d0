"""The learning curve of a real model: trained on growing parts of the training split, asked the whole test split."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.analysis.learning_curve import SHARES, IntArray, LearningCurve, trace
from app.config import RunConfig
from app.fitting import Listener
from app.initial_weights import with_file
from app.metrics import Examples
from app.training import Material, settle, train
from data.pipeline import make_datasets
from data.vocabulary import learn_vocabulary


def learning_curve(
    config: RunConfig,
    material: Material,
    cache: Path,
    *,
    shares: Sequence[float] = SHARES,
    repeats: int = 1,
    listen: Listener,
) -> LearningCurve:
    """Train `config` on growing shares of `material`'s training split and forecast what more rows would give.

    Everything is learned from the share alone, the vocabulary too: somebody who had only these rows would have no
    other. Validation (early stopping, temperature) and test are whole for every share, and so are the settings:
    the same number of epochs is fewer steps on fewer rows. Token ids too large for memory are kept below `cache`
    while a share is trained on. `listen` hears of every epoch of every training.

    Raises:
        RequestError: shares that do not rise to 1, or fewer than three.
        FloatingPointError: a training came to nothing.
    """
    config = settle(config, material)
    test_ids = material.splits.test.label_ids

    def fit(rows: IntArray, seed: int) -> Examples:
        with tempfile.TemporaryDirectory(prefix="learning-curve-", dir=cache) as folder:
            part = part_of(material, rows, config, Path(folder))
            run = train(config.model_copy(update={"seed": seed}), part, listen)
        return Examples(test_ids.astype("int64"), run.test_probabilities)

    cache.mkdir(parents=True, exist_ok=True)
    return trace(fit, material.splits.train.label_ids, shares=shares, repeats=repeats, seed=config.seed)


def part_of(material: Material, rows: IntArray, config: RunConfig, cache: Path) -> Material:
    """The material of somebody who has only these rows of the training split: their vocabulary, all other splits.

    Text from outside, and the vocabulary that comes with it, is theirs too.

    The data card and the fingerprints stay those of the whole.
    """
    whole = material.splits.train
    train_split = dataclasses.replace(
        whole,
        texts=tuple(whole.texts[row] for row in rows),
        label_ids=whole.label_ids[rows],
        groups=None if whole.groups is None else tuple(whole.groups[row] for row in rows),
        columns={name: tuple(values[row] for row in rows) for name, values in whole.columns.items()},
    )
    splits = dataclasses.replace(material.splits, train=train_split)
    vocabulary = material.start.vocabulary or learn_vocabulary(train_split.texts, config.vocabulary)
    start = with_file(material.start, config.init, vocabulary)
    datasets = make_datasets(splits, vocabulary, config.pipeline, cache)
    return dataclasses.replace(material, splits=splits, vocabulary=vocabulary, datasets=datasets, start=start)
