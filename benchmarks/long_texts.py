"""What do windows bring over truncation on long texts? One model, trained with each way to read them.

    python benchmarks/long_texts.py --model lstm --data imdb --archive aclImdb_v1.tar.gz --window 512 --seeds 3
    python benchmarks/long_texts.py --rows 400 --set model.epochs=1

The same splits, vocabulary, window length and seeds for all: the first pieces (`head`), the first 30% and the last 70%
(`head+tail`), windows with stride (`window`). Prints test accuracy with its 95% interval on all texts and on those that
are longer than a window, each way's difference from `head`, and CPU seconds of training; writes results.json to
`--output`, where the answers stay: a second start trains only what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_runs import refuse_seeds
from code_version import called, version_of_models
from silent import Silent

from app.comparison import Contender, compare
from app.config import RunConfig, resolve_config
from app.errors import RequestError
from app.metrics import evaluate_seeds
from app.pairs import Pair
from app.statistics import Interval
from app.training import Material, prepare, train
from data.errors import DataError
from data.pipeline import make_datasets
from data.sources import DataConfig, load_rows

WAYS = {
    "head": ("pipeline.long=truncate", "pipeline.truncation=head"),
    "head+tail": ("pipeline.long=truncate", "pipeline.truncation=head+tail"),
    "window": ("pipeline.long=window",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train each way with each seed, print the table, write it. Exit code 2 when the request was wrong."""
    chosen = _parser().parse_args(arguments)
    try:
        refuse_seeds(chosen.settings, "--set")
        return run(chosen)
    except (RequestError, DataError) as error:
        print(error, file=sys.stderr)
        return 2


def run(chosen: argparse.Namespace) -> int:
    """Do what was chosen."""
    now = version_of_models()  # before anything is trained: a file may change meanwhile
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        configs = {way: configure(chosen, settings, Path(folder)) for way, settings in WAYS.items()}
        material = prepare(configs["head"], Path(folder), Silent())
        print("\n".join(material.card.lines()))
        answers = {way: answer(way, config, material, chosen, Path(folder)) for way, config in configs.items()}
    found = {
        "all texts": table(answers, material, np.ones(len(material.splits.test.texts), dtype=bool)),
        f"longer than {chosen.window}": table(answers, material, material.datasets.test.lengths > chosen.window),
    }
    show(found)
    if note := versions_note(answers, now):
        print(note)
    content = {"model": chosen.model, "window": chosen.window, "seeds": chosen.seeds, "results": found}
    content["versions"] = {way: of_way["versions"] for way, of_way in answers.items()}
    (chosen.output / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lstm")
    parser.add_argument("--data", default="imdb", help="a source or a file, as of `train`")
    parser.add_argument("--archive", help="of imdb")
    parser.add_argument("--window", type=int, default=512, help="pieces read at once, by all ways")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, help="take so many rows of all, for a try")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="section.key=value, for all ways")
    parser.add_argument("--anew", action="store_true", help="train again what is kept of another version of the code")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/long_texts"))
    return parser


def configure(chosen: argparse.Namespace, settings: Sequence[str], folder: Path) -> RunConfig:
    """The configuration of one way."""
    data: dict[str, Any] = {"source": chosen.data}
    if chosen.archive:
        data["archive"] = chosen.archive
    if chosen.rows:
        data = write_sample(DataConfig(**data), chosen.rows, folder / "part.parquet")
    every = [f"pipeline.sequence_length={chosen.window}", *chosen.settings]
    return resolve_config(chosen.model, {}, [*every, *settings], data)


def write_sample(config: DataConfig, rows: int, path: Path) -> dict[str, Any]:
    """Write some of the rows as a file, the same on every run, and return where it is and what its columns mean."""
    columns = {"split": "split_column", "group": "group_column"}
    if not path.is_file():
        frame = load_rows(config).frame
        part = frame.iloc[np.sort(np.random.default_rng(0).choice(len(frame), min(rows, len(frame)), replace=False))]
        kept = [name for name in columns if part[name].notna().all()]
        part[["text", "label", *kept]].to_parquet(path, index=False)
        path.with_suffix(".json").write_text(json.dumps(kept), encoding="utf-8")
    kept = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return {"source": str(path), "name": "part", **{columns[name]: name for name in kept}}


def answer(way: str, config: RunConfig, material: Material, chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Test probabilities float64[seeds, n, c], trained or kept from before, and the CPU seconds of training."""
    datasets = make_datasets(material.splits, material.vocabulary, config.pipeline, folder)
    own = dataclasses.replace(material, datasets=datasets)
    probabilities, seconds, versions = [], [], []
    for seed in range(chosen.seeds):
        of_seed = config.model_copy(update={"seed": seed})
        kept = chosen.output / f"{chosen.model}-{way}-{seed}-{_digest(of_seed, material)}.npz"
        if not kept.is_file() or (chosen.anew and version_of(kept) != version_of_models()):
            trained = train(of_seed, own, lambda report: None)
            aside = kept.with_suffix(".part.npz")
            content = {"probabilities": trained.test_probabilities, "cpu_seconds": trained.history.cpu_seconds}
            np.savez(aside, **content, code=version_of_models())
            aside.replace(kept)
        with np.load(kept) as file:
            probabilities.append(file["probabilities"])
            seconds.append(float(file["cpu_seconds"]))
        versions.append(version_of(kept))
        print(f"{way:<10} seed {seed}   {seconds[-1]:,.0f} CPU seconds", file=sys.stderr)
    return {
        "probabilities": np.stack(probabilities),
        "cpu_seconds": float(np.mean(seconds)),
        "versions": versions,
    }


def version_of(kept: Path) -> str | None:
    """Version of the code that a kept answer is of; None in one from before that was kept."""
    with np.load(kept) as file:
        return str(file["code"]) if "code" in file else None


def versions_note(answers: Mapping[str, Mapping[str, Any]], now: str) -> str:
    """What to say under the tables when kept answers are of other versions of the code; empty: nothing."""
    others = Counter(called(one) for of_way in answers.values() for one in of_way["versions"] if one != now)
    if not others:
        return ""
    counts = ", ".join(f"{count} of {version}" for version, count in others.items())
    return f"\nAnswers of other versions of the code than {called(now)}, which --anew trains again: {counts}"


def _digest(config: RunConfig, material: Material) -> str:
    """Of everything but the code that a kept answer depends on; the place of the texts is none of it."""
    settings = config.model_dump_json(exclude={"data"})
    return hashlib.sha256(f"{settings} {material.splits.fingerprint}".encode()).hexdigest()[:12]


def table(answers: dict[str, dict[str, Any]], material: Material, rows: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy of each way on some of the test texts, and its difference from the first way's."""
    label_ids, names = material.splits.test.label_ids[rows], material.splits.label_names
    if not rows.any():
        return []
    contenders = []
    for way, of_way in answers.items():
        part = of_way["probabilities"][:, rows]
        contenders.append(Contender(way, label_ids, part, evaluate_seeds(label_ids, part, names), 0.0, 0.0))
    pairs = compare(contenders).pairs
    return [
        {
            "way": one.name,
            "texts": len(label_ids),
            "accuracy": one.evaluation.metrics["accuracy"].to_dict(),
            "over_head": over_head(pairs, one.name),
            "cpu_seconds": answers[one.name]["cpu_seconds"],
        }
        for one in contenders
    ]


def over_head(pairs: Sequence[Pair], way: str) -> dict[str, float | None] | None:
    """How much more of the texts a way is right on than `head`; None of `head` itself."""
    for pair in pairs:
        if {pair.first, pair.second} == {"head", way}:
            found, p_value = pair.difference, {"p_value": pair.adjusted_p_value}
            if pair.first == "head":
                found = Interval(-found.value, -found.high, -found.low)
            return {**found.to_dict(), **p_value}
    return None


def show(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print a line for each way, first on all texts, then on the long ones."""
    for name, ways in found.items():
        print(f"\n{name}: {ways[0]['texts'] if ways else 0:,} of the test split")
        for one in ways:
            accuracy, over = one["accuracy"], one["over_head"]
            line = f"  {one['way']:<10} {accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
            if over:
                points = " ".join(f"{100 * over[part]:+.1f}" for part in ("value", "low", "high"))
                line += f"   over head, points and interval: {points}, p {over['p_value']:.3f}"
            print(f"{line}   {one['cpu_seconds']:,.0f} CPU seconds")


if __name__ == "__main__":
    sys.exit(main())
