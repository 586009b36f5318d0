"""What each ingredient of a configuration adds: the base, and the base with one change at a time, on the same seeds.

    python benchmarks/ablation.py lstm --change "no smoothing: fit.label_smoothing=0" --change "short: model.epochs=1"
    python benchmarks/ablation.py lstm --config base.toml --data imdb --archive aclImdb_v1.tar.gz --seeds 3 --change ...

A change is a name, a colon and one or more `section.key=value` between commas. "What the change takes away" is the
accuracy of the base less that of the change, with its 95% interval; p is corrected for the number of changes. Runs are
kept in `--output` as those of `accuracy.py` are: one file may serve both, and what is in it is not trained again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

from accuracy_runs import (
    Task,
    add_arguments,
    check_options,
    load_data,
    our_system,
    print_plan,
    refuse_seeds,
    row_of,
    train_missing,
)
from accuracy_systems import MaterialCache
from accuracy_table import ablate, ablation_markdown, versions_note
from trained_runs import RunStore

from app.errors import RequestError
from data.errors import DataError
from models import MODELS


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, train, print. Exit code 1 when a run failed, 2 when the request was wrong."""
    chosen = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as cache:
            return run(chosen, MaterialCache(Path(cache)))
    except (RequestError, DataError) as error:
        print(error, file=sys.stderr)
        return 2


def run(chosen: argparse.Namespace, materials: MaterialCache) -> int:
    """Train what is missing of the base and its changes, and print what each change takes away."""
    store = RunStore(chosen.output)
    tasks = plan(chosen, materials)
    if chosen.plan:
        print_plan(tasks, store, anew=chosen.anew)
        return 0
    failed = train_missing(tasks, store, anew=chosen.anew)
    base, *changes = (row_of(task, store, failed) for task in tasks)
    whole = [row for row in changes if row.runs] if base.runs else []
    table = ablation_markdown(base, changes, ablate(base, whole, store))
    print(table, *filter(None, [versions_note([base, *changes])]), sep="\n")
    return 1 if failed else 0


def plan(chosen: argparse.Namespace, materials: MaterialCache) -> list[Task]:
    """The base first, then its changes in their order.

    Raises:
        RequestError: a change is written wrongly or changes nothing, or two have one name.
    """
    check_options([chosen.data], chosen)
    data, splits = load_data(chosen.data, chosen, chosen.output)
    base = our_system(chosen.model, chosen.config, chosen.set, data, materials)
    tasks = [Task(splits, base, tuple(range(chosen.seeds)))]
    for text in chosen.change:
        title, overrides = parse_change(text)
        changed = our_system(chosen.model, chosen.config, [*chosen.set, *overrides], data, materials)
        if changed.config == base.config:
            raise RequestError(f"--change {text}: the base has these settings already")
        tasks.append(Task(splits, replace(changed, name=title), tuple(range(chosen.seeds))))
    names = [task.system.name for task in tasks]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise RequestError(f"{twice[0]!r} is the name of more than one configuration. Give each a name of its own")
    return tasks


def parse_change(text: str) -> tuple[str, list[str]]:
    """The name of a change and its settings: "short: model.epochs=1" -> ("short", ["model.epochs=1"]).

    Raises:
        RequestError: there is no name, or a setting is not written as `section.key=value`.
    """
    title, sign, settings = text.partition(":")
    overrides = [part.strip() for part in settings.split(", ")]
    if not (title.strip() and sign) or "" in overrides or not all("=" in part for part in overrides):
        raise RequestError(f'--change {text}: write "NAME: section.key=value", more settings after a comma and a space')
    if any(part.startswith("data.") for part in overrides):
        raise RequestError(f"--change {text}: all configurations of an ablation learn from the same data")
    refuse_seeds(overrides, f"--change {title}:")
    return title.strip(), overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--config", type=Path, help="TOML file of the base; the model's defaults without")
    parser.add_argument("--change", action="append", required=True, metavar="NAME: section.key=value")
    parser.add_argument("--data", default="rotten-tomatoes", help="a source or a file, as for `train`")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/accuracy.json"))
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
