"""What is to be trained for a table, and training what its file does not hold yet: for `accuracy.py`, `ablation.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accuracy_systems import MaterialCache, ModelSystem, System, key_of, record_of
from accuracy_table import Row, make_row
from trained_runs import RunStore, TrainedRecord

from app.config import read_toml, resolve_config
from app.errors import RequestError
from app.pretrained_runs import locate
from app.tracking import Tracker
from data.sources import SOURCES, DataConfig
from data.splits import Split, Splits, load_splits
from models import MODELS


@dataclass(frozen=True, eq=False)
class Task:
    """One system on one data set, with all its seeds."""

    splits: Splits
    system: System
    seeds: tuple[int, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that both benchmarks have."""
    parser.add_argument("--archive", type=Path, help="imdb: the archive or unpacked folder to read")
    parser.add_argument("--group-column", help="column whose values stay on one side of a split, of files")
    parser.add_argument("--train-rows", type=int, help="learn from that many rows of the training split, by class")
    parser.add_argument("--seeds", type=int, default=5, help="0 to this, exclusive")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="for all our models")
    parser.add_argument("--plan", action="store_true", help="print what would be trained, and train nothing")
    parser.add_argument("--anew", action="store_true", help="train again what is kept of another version of the code")


def check_options(sources: Sequence[str], chosen: argparse.Namespace) -> None:
    """Refuse an option that would change nothing.

    Raises:
        RequestError: no source takes `--archive` or `--group-column`, or a setting is one of the seeds.
    """
    if chosen.archive is not None and not any(map(takes_archive, sources)):
        raise RequestError(f"--archive {chosen.archive}: only imdb is read from one, not {', '.join(sources)}")
    if chosen.group_column is not None and not any(map(takes_group_column, sources)):
        allowed = f"only files have columns to name, not {', '.join(sources)}"
        raise RequestError(f"--group-column {chosen.group_column}: {allowed}")
    refuse_seeds(chosen.set, "--set")


def takes_archive(source: str) -> bool:
    """Whether `--archive` is for this source."""
    return source == "imdb"


def takes_group_column(source: str) -> bool:
    """Whether `--group-column` is for this source: a file, and not a folder or a name. Not whether it is there."""
    return source not in SOURCES and not Path(source).is_dir()


def refuse_seeds(overrides: Sequence[str], option: str) -> None:
    """Refuse settings `seed` and `seeds`, which `--seeds` would overrule without a word."""
    for override in overrides:
        if override.partition("=")[0].strip() in ("seed", "seeds"):
            raise RequestError(f"{option} {override}: each run has a seed of its own. Say how many with --seeds")


def load_data(source: str, chosen: argparse.Namespace, output: Path) -> tuple[DataConfig, Splits]:
    """The splits of a source, and the configuration that gives our models the same.

    Raises:
        DataError, RequestError: the source cannot be used, or has fewer training rows than asked for.
    """
    settings: dict[str, Any] = {"source": source}
    if chosen.archive is not None and takes_archive(source):
        settings["archive"] = chosen.archive
    if chosen.group_column is not None and takes_group_column(source):
        settings["group_column"] = chosen.group_column
    of_data = [override for override in chosen.set if override.strip().startswith("data.")]
    config = resolve_config(next(iter(MODELS)), {}, of_data, settings).data
    splits = load_splits(config)
    if chosen.train_rows is None:
        return config, splits
    file = write_with_fewer_rows(splits, chosen.train_rows, output.with_name(f"{output.stem}-data"))
    config = DataConfig(source=str(file), name=config.name or f"{splits.name}-{chosen.train_rows}")
    return config, load_splits(config)


def write_with_fewer_rows(splits: Splits, rows: int, folder: Path) -> Path:
    """Write the splits with that many rows of training, by class and always the same ones, as a Parquet file."""
    file = folder / f"{splits.name}-{splits.fingerprint[:12]}-{rows}.parquet"
    train = choose_rows(splits.train, rows, splits.name)
    parts = {"train": train, "validation": splits.validation, "test": splits.test}
    frames = [
        pd.DataFrame({"text": part.texts, "label": [splits.label_names[one] for one in part.label_ids], "split": name})
        for name, part in parts.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_parquet(file)
    return file


def choose_rows(train: Split, rows: int, name: str) -> Split:
    """That many rows in the order of the split, drawn with seed 0, each class with its share and at least one."""
    classes = np.bincount(train.label_ids)
    if not len(classes) <= rows <= len(train):
        allowed = f"{len(classes)} (one a class) to {len(train)}"
        raise RequestError(f"--train-rows {rows}: {name} allows {allowed}, the rows of its training split")
    shares = classes * rows / len(train)
    counts = np.maximum(1, np.floor(shares).astype(int))
    while counts.sum() < rows:  # those go first that rounding down took most from
        counts[np.argmax(shares - counts)] += 1
    while counts.sum() > rows:  # a rare class was given more than its share
        counts[np.argmax(counts - shares - 1e9 * (counts == 1))] -= 1
    generator = np.random.default_rng(0)
    chosen = [
        generator.permutation(np.flatnonzero(train.label_ids == label_id))[:count]
        for label_id, count in enumerate(counts)
    ]
    places = np.sort(np.concatenate(chosen))
    return Split(tuple(train.texts[place] for place in places), train.label_ids[places])


def our_system(
    name: str, file: Path | None, overrides: Sequence[str], data: DataConfig, materials: MaterialCache
) -> ModelSystem:
    """A model with its default settings, or with those of a TOML file; the data is always that of the table.

    Raises:
        RequestError: as `resolve_config`; or the file does not say of which model it is, and its name neither.
    """
    settings = read_toml(file) if file is not None else {}
    model_name = settings.get("model_name", name)
    if file is not None and "model_name" not in settings and name not in MODELS:
        raise RequestError(f"{file}: model_name is missing. Allowed: {', '.join(MODELS)}")
    kept = {key: value for key, value in settings.items() if key not in ("data", "seed", "seeds")}
    wanted = [override for override in overrides if not override.strip().startswith("data.")]
    config = resolve_config(model_name, kept, wanted).model_copy(update={"data": data})
    artifacts = Path(os.environ.get("VALENCE_ARTIFACTS", "artifacts"))  # where runs that it starts from are
    (config,) = locate([config], lambda: Tracker(artifacts))
    return ModelSystem(name, config, materials)


def missing_runs(tasks: Sequence[Task], store: RunStore, *, anew: bool = False) -> list[tuple[Task, int]]:
    """What is to be trained: a task and a seed each; with `anew` also what is kept of another version of the code."""

    def is_there(task: Task, seed: int) -> bool:
        run = store.find(key_of(task.system, task.splits, seed))
        return run is not None and not (anew and run.code != task.system.version)

    return [
        (task, seed) for task in tasks if task.system.missing is None for seed in task.seeds if not is_there(task, seed)
    ]


def print_plan(tasks: Sequence[Task], store: RunStore, *, anew: bool = False) -> None:
    """Say what would be trained, what is there already, and what cannot be."""
    to_train = {(id(task), seed) for task, seed in missing_runs(tasks, store, anew=anew)}
    for task in tasks:
        new = [seed for seed in task.seeds if (id(task), seed) in to_train]
        done = len(task.seeds) - len(new)
        what = task.system.missing or f"train with seed {listed(new)}" * bool(new) + f"; {done} done" * bool(done)
        print(f"{task.splits.name:<20} {task.system.name:<24} {what.removeprefix('; ')}")
    print(f"{len(to_train)} runs to train")


def listed(seeds: Sequence[int]) -> str:
    """0, 1, 2"""
    return ", ".join(map(str, seeds))


def train_missing(tasks: Sequence[Task], store: RunStore, *, anew: bool = False) -> dict[tuple[str, str], str]:
    """Train and keep what the store lacks; return (data, system) -> reason of what failed, the others going on."""
    failed: dict[tuple[str, str], str] = {}
    wanted = missing_runs(tasks, store, anew=anew)
    for number, (task, seed) in enumerate(wanted, start=1):
        system, splits = task.system, task.splits
        title = f"{number} of {len(wanted)}: {splits.name}, {system.name}, seed {seed}"
        try:
            trained = system.train(splits, seed)
        except (FloatingPointError, RuntimeError) as error:
            failed[splits.name, system.name] = f"seed {seed} failed: {error}"
            say(f"{title}  FAILED: {error}")
            continue
        record = record_of(system, splits, seed, trained)
        store.add(record, splits.test.label_ids, trained.probabilities)
        minutes = record.training_cpu_seconds / 60
        say(f"{title}  accuracy {record.accuracy:.3f}  log loss {record.log_loss:.3f}  {minutes:.1f} CPU minutes")
    return failed


def row_of(task: Task, store: RunStore, failed: dict[tuple[str, str], str]) -> Row:
    """What the file holds of a task, as a line of the table."""
    found = [store.find(key_of(task.system, task.splits, seed)) for seed in task.seeds]
    runs: list[TrainedRecord] = [run for run in found if run is not None]
    note = task.system.missing if not runs else None
    note = note or failed.get((task.splits.name, task.system.name))
    return make_row(task.splits.name, task.system.name, runs, store, note, version=task.system.version)


def say(text: str) -> None:
    """Tell how it goes, on standard error."""
    print(text, file=sys.stderr, flush=True)
