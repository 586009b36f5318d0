"""Whether the findings beside a comparison find what was planted into a real data set, and nothing where nothing was.

    python benchmarks/planted_faults.py
    python benchmarks/planted_faults.py --data questions.parquet --parts ab

Answers come from a bag of words, so it takes minutes. Prints a table of the targets (exit code 1 when one is missed)
and writes results.json to `--output`. README.md tells what each part is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from planting import Array, Corpus, answer, flip_labels, lengthen, pieces, plant_copies, spoil
from rapidfuzz import fuzz, process, utils

from app.analysis.features import features
from app.analysis.label_errors import out_of_sample_probabilities, suspects
from app.analysis.leaks import Leaks, find_leaks
from app.analysis.slices import MIN_ROWS, find_slices
from app.analysis.truncation import truncation_ledger
from data.sources import DataConfig
from data.splits import load_splits

PARTS = "abcd"
COPIES, FLIPS = 0.15, 0.08
SPOILED = 0.5
SEEDS = (0, 1, 2)
# An exhaustive search calls two texts alike from here on.
ALIKE = 80
READ, FILLER = 64, 90
# The question, the figure, what was aimed at, and whether that is met; None for a figure without an aim.
Target = tuple[str, str, str, bool | None]
MEANING = {True: "met", False: "MISSED", None: ""}


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant, look, print, write. Exit code 1 when a target is missed."""
    chosen = _parser().parse_args(arguments)
    splits = load_splits(DataConfig(source=chosen.data))
    corpus = Corpus.of(splits, chosen.max_rows)
    found: dict[str, Any] = {"data": corpus.name, "train": len(corpus.train), "test": len(corpus.test)}
    measure = {"a": leaks, "b": label_flips, "c": slices, "d": truncation}
    for part in chosen.parts:
        start = time.perf_counter()
        found[part] = measure[part](corpus)
        _say(f"({part}) {measure[part].__name__}: {time.perf_counter() - start:.0f} s")
    output = chosen.output / corpus.name
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return report(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="rotten-tomatoes", help="a source, or a file with the columns text and label")
    parser.add_argument("--parts", default=PARTS, help="of abcd")
    parser.add_argument("--max-rows", type=int, default=25_000, help="of each split")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/planted-faults"))
    return parser


def leaks(corpus: Corpus) -> dict[str, Any]:
    """Near-duplicates of training in test: natural ones, none once those are out, and 15% planted ones."""
    start = time.perf_counter()
    natural = find_leaks({"train": corpus.train, "test": corpus.test})
    seconds = time.perf_counter() - start
    alike = exhaustive(corpus)
    unlike = [twin for twin in natural.twins if not alike[twin.row]]
    clean = corpus.with_test(
        [text for text, out in zip(corpus.test, alike, strict=True) if not out], corpus.test_ids[~alike]
    )
    without = find_leaks({"train": clean.train, "test": clean.test})
    runs = []
    for seed in SEEDS:
        planted, rows = plant_copies(clean, COPIES, seed)
        twins = find_leaks({"train": planted.train, "test": planted.test}, [answer("bag of words", planted)])
        runs.append(_recovered(twins, rows))
    return {
        "seconds": seconds,
        "natural_rows": natural.leaked[0].with_twin,
        "natural": [
            _texts(twin.row, twin.other_row, corpus) | {"similarity": twin.similarity} for twin in natural.twins
        ],
        "unlike_to_an_exhaustive_search": len(unlike),
        "alike_to_an_exhaustive_search": int(alike.sum()),
        "pairs_without_planting": len(without.twins),
        "planted": runs,
    }


def exhaustive(corpus: Corpus) -> Array:
    """Whether each test text is like any training text, every pair compared, normalised by rapidfuzz: bool[n]."""
    train, test = ([utils.default_process(text) for text in texts] for texts in (corpus.train, corpus.test))
    chunks = [test[start : start + 256] for start in range(0, len(test), 256)]
    best = [
        process.cdist(chunk, train, scorer=fuzz.ratio, score_cutoff=ALIKE, dtype=np.uint8).max(axis=1)
        for chunk in chunks
    ]
    return np.concatenate(best) >= ALIKE


def _texts(row: int, other_row: int, corpus: Corpus) -> dict[str, str]:
    return {"test": corpus.test[row][:200], "train": corpus.train[other_row][:200]}


def _recovered(found: Leaks, planted: Array) -> dict[str, Any]:
    has_twin = np.zeros(len(planted), dtype=bool)
    has_twin[[twin.row for twin in found.twins]] = True
    (score,) = found.scores
    return {
        "planted": float(planted.mean()),
        "found": found.leaked[0].share.value,
        "recall": float(has_twin[planted].mean()),
        "falsely": int(has_twin[~planted].sum()),
        "accuracy": {"all": score.every.value, "without": score.without_twins.value, "twins": score.twins.value},
    }


def label_flips(corpus: Corpus) -> list[dict[str, Any]]:
    """8% of the training labels made wrong: how many of the first suspects are."""
    classes = len(corpus.label_names)
    runs = []
    for seed in SEEDS:
        ids, wrong = flip_labels(corpus.train_ids, classes, FLIPS, seed)
        found = suspects(
            corpus.train, ids, out_of_sample_probabilities(corpus.train, ids, classes, seed=seed), corpus.label_names
        )
        rows = [suspect.row for suspect in found.rows]
        of_suspects, of_rows = (max(1, round(0.05 * count)) for count in (len(rows), len(ids)))
        runs.append(
            {
                "wrong": int(wrong.sum()),
                "suspects": len(rows),
                "first_of_suspects": of_suspects,
                "precision_of_suspects": float(wrong[rows[:of_suspects]].mean()),
                "first_of_rows": min(of_rows, len(rows)),
                "precision_of_rows": float(wrong[rows[:of_rows]].mean()),
                "precision": float(wrong[rows].mean()),
                "recall": float(wrong[rows].sum() / wrong.sum()),
                "estimated": found.estimated_errors.to_dict(),
            }
        )
    return runs


def slices(corpus: Corpus) -> list[dict[str, Any]]:
    """Each kind of text in turn made wrong on purpose for one of two models: is it ranked first?"""
    sources, shares = ["web", "mail", "phone", "shop"], [0.5, 0.25, 0.15, 0.1]
    source = np.random.default_rng(1000).choice(sources, len(corpus.test), p=shares)
    half = replace(corpus, train=corpus.train[::2], train_ids=corpus.train_ids[::2])
    both = [
        replace(one, columns={"source": source.astype(object)})
        for one in (answer("bag of words", corpus), answer("half of the data", half))
    ]
    # No share of a class is made wrong: a class is a natural slice of every model already.
    spoilt = [feature for feature in features(both[0], MIN_ROWS) if feature.name != "class"]
    runs = []
    for feature in spoilt:
        for value_id, value in enumerate(feature.values):
            mask = feature.value_ids == value_id
            if MIN_ROWS <= mask.sum() <= len(mask) / 2:
                # A class that the model hardly knows is worse than anything planted here, and known without slices.
                ranked = find_slices([spoil(both[0], mask, SPOILED, 0), both[1]])
                names = [one.name for one in ranked if one.feature != "class"]
                name = f"{feature.name}: {value}"
                run = {"slice": name, "rows": int(mask.sum()), "rank": names.index(name) + 1, "first": names[0]}
                runs.append(run | {"rank_among_classes_too": [one.name for one in ranked].index(name) + 1})
    return runs


def truncation(corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """Every second text made long, its signal behind what is read, or before its end: what does the ledger say?"""
    found: dict[str, list[dict[str, Any]]] = {"after": [], "before": []}
    for seed in SEEDS:
        for place in found:
            made = lengthen(corpus, FILLER, signal_last=place == "after", seed=seed)
            given = answer("bag of words", made, read=_first_pieces, sequence_length=READ)
            counts = [len(pieces(text)) for text in made.train]
            ledger = truncation_ledger(
                given, train_texts=made.train, train_label_ids=made.train_ids, train_num_tokens=counts, seed=seed
            )
            found[place].append(ledger.to_dict())
    return found


def _first_pieces(text: str) -> str:
    return " ".join(pieces(text)[: READ - 1])


def targets(found: dict[str, Any]) -> Iterator[Target]:
    """What was aimed at, and what is shown beside it."""
    if "a" in found:
        yield from _of_leaks(found["a"])
    if "b" in found:
        precision = float(np.mean([run["precision_of_suspects"] for run in found["b"]]))
        of_rows = float(np.mean([run["precision_of_rows"] for run in found["b"]]))
        title = f"(b) {FLIPS:.0%} flipped labels, precision of the first 5%"
        yield f"{title} of the suspects", f"{precision:.2f}", "at least 0.70", precision >= 0.7
        yield f"{title} of all rows", f"{of_rows:.2f}", "", None
    if "c" in found:
        first = [run for run in found["c"] if run["rank"] == 1]
        yield (
            "(c) slices made wrong that are ranked first, classes aside",
            f"{len(first)} of {len(found['c'])}",
            "all",
            first == found["c"],
        )
    if "d" in found:
        for place, expected, title in (
            ("after", True, "behind the cut, found"),
            ("before", False, "before it, no alarm"),
        ):
            runs = [ledger["hides_signal"] == expected for ledger in found["d"][place]]
            yield f"(d) signal {title}", f"{sum(runs)} of {len(runs)}", "all", all(runs)


def _of_leaks(found: dict[str, Any]) -> Iterator[Target]:
    for run in found["planted"]:
        yield (
            "(a) test texts with a twin in training, planted",
            f"{run['found']:.1%} of {run['planted']:.1%}, {run['falsely']} falsely",
            "within 2 points",
            abs(run["found"] - run["planted"]) <= 0.02,
        )
    pairs = found["pairs_without_planting"]
    yield "(a) pairs without planting, natural ones taken out", f"{pairs}", "0", pairs == 0
    yield "(a) natural ones: test texts with a twin", f"{found['natural_rows']}", "", None


def report(found: dict[str, Any]) -> int:
    """Print the table; return the exit code."""
    print(f"{found['data']}: {found['train']:,} training texts, {found['test']:,} test texts")
    rows = list(targets(found))
    widths = [max(map(len, column)) for column in zip(*(row[:3] for row in rows), strict=True)]
    for *texts, is_met in rows:
        line = "  ".join(f"{text:<{width}}" for text, width in zip(texts, widths, strict=True))
        print(f"{line}  {MEANING[is_met]}".rstrip())
    return 1 if any(row[3] is False for row in rows) else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
