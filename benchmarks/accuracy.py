"""How accurate: our models and peers on the same splits of any data sets, several seeds, in one table with intervals.

    python benchmarks/accuracy.py --models linear lstm --peers tfidf nblr
    python benchmarks/accuracy.py --data trec6.parquet --models --config long=long.toml --peers tfidf --seeds 3

Each run is kept in `--output` as soon as it is done; a second call with the same file goes on where it was stopped and
trains only what is new. Prints a Markdown table of what was asked for; exit code 1 when a run failed. README.md tells
how it is kept fair.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

from accuracy_runs import Task, add_arguments, check_options, load_data, our_system, print_plan, row_of, train_missing
from accuracy_systems import MaterialCache, System, peer_systems
from accuracy_table import markdown, versions_note
from peers import PEERS
from trained_runs import RunStore

from app.errors import RequestError
from data.errors import DataError
from data.sources import DataConfig
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
    """Train what is missing of what was chosen, and print the table."""
    store = RunStore(chosen.output)
    tasks = plan(chosen, materials)
    if chosen.plan:
        print_plan(tasks, store, anew=chosen.anew)
        return 0
    failed = train_missing(tasks, store, anew=chosen.anew)
    rows = [row_of(task, store, failed) for task in tasks]
    print(markdown(rows), *filter(None, [versions_note(rows)]), sep="\n")
    return 1 if failed else 0


def plan(chosen: argparse.Namespace, materials: MaterialCache) -> list[Task]:
    """Everything that the table needs, data set by data set."""
    sources = chosen.data or ["rotten-tomatoes"]
    check_options(sources, chosen)
    tasks = []
    for source in sources:
        data, splits = load_data(source, chosen, chosen.output)
        for system in systems(chosen, data, materials):
            tasks.append(Task(splits, system, (0,) if system.one_seed_is_enough else tuple(range(chosen.seeds))))
    return tasks


def systems(chosen: argparse.Namespace, data: DataConfig, materials: MaterialCache) -> list[System]:
    """Our models with their defaults, then those with a file of settings, then the peers.

    Raises:
        RequestError: two have one name, or a setting is wrong.
    """
    files = [_named_file(text) for text in chosen.config]
    ours = [*[(name, None) for name in chosen.models], *files]
    names = [name for name, _ in ours]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{twice[0]} is named more than once. Give each configuration a name of its own")
    found: list[System] = [our_system(name, file, chosen.set, data, materials) for name, file in ours]
    return [*found, *peer_systems(chosen.peers, chosen.peer_python, chosen.refit_peers)]


def _named_file(text: str) -> tuple[str, Path]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise RequestError(f"--config {text}: write NAME=FILE, for example --config long=long.toml")
    return name, Path(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="a source or a file, as for `train`; repeatable")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=[], help="with their default settings")
    parser.add_argument("--config", action="append", default=[], metavar="NAME=FILE", help="TOML; repeatable")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=[])
    parser.add_argument("--peer-python", type=Path, help="interpreter that has fasttext and torch")
    parser.add_argument(
        "--refit-peers", action="store_true", help="peers learn from validation too, once they have chosen"
    )
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/accuracy.json"))
    add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
