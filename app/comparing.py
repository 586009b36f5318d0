"""From what a person names to a comparison with its findings: find, judge whether it is fair, measure, look into."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app import fairness
from app.analysis.aligned import check_aligned
from app.analysis.costs import CostPanel, ModelCost, cost_panel, export_bytes, measure_speeds
from app.analysis.learning_curve import LearningCurve
from app.compared import Compared, LockLine, Setting, SplitTexts, look_into
from app.config import RunConfig, read_toml, resolve_config
from app.entries import (
    Entry,
    entries_of_folders,
    entries_of_runs,
    entry_of_candidate,
    find_runs,
    is_version_folder,
)
from app.errors import RequestError
from app.experiment import Outcome
from app.fitting import EpochReport
from app.learning_curves import learning_curve
from app.pretrained_runs import locate
from app.report.files import PAGE, default_page, metrics_of, write_report
from app.saved_model_answers import read_labelled
from app.serving.predictor import Predictor
from app.tracking import Tracker, TrackingError, stack_versions
from app.training import prepare
from data.errors import DataError
from data.sources import DataConfig
from data.splits import Splits, load_splits

COST_TEXTS = 200  # texts of the test split that every model is timed on
COST_ROUNDS = 3
REPORT_FOLDER = "comparison"  # among a run's artifacts
HASH = 64  # characters of a SHA-256


class Listening(Protocol):
    """Who is told what takes a while. `app.experiment.Reporter` is one."""

    def doing(self, what: str) -> None:
        """Tell what takes a while now."""

    def downloaded(self, done: int, total: int | None) -> None:
        """Tell how many bytes of a download have come, of how many."""

    def epoch(self, report: EpochReport) -> None:
        """Tell of a step or of an epoch's end."""


@dataclass(frozen=True)
class Wanted:
    """What to compare, and what to look at.

    references: see `app.entries`. made: date and time as the report shows them. data: labelled texts for SavedModel
    folders. anyway: also what is no fair comparison. margin: as in `app.comparison.compare`. Prices: as in
    `app.analysis.costs.cost_panel`. learning_curve: train each model on 10, 20, 50 and 100% of the rows.
    """

    references: tuple[str, ...]
    made: str
    data: DataConfig | None = None
    anyway: bool = False
    margin: float | None = None
    price_per_cpu_hour: float | None = None
    price_per_error: float | None = None
    learning_curve: bool = False
    leaks: bool = True
    costs: bool = True


def compare_named(wanted: Wanted, tracker: Tracker, cache: Path, listener: Listening) -> Compared:
    """Compare what was named.

    Raises:
        RequestError: something that is not there or has kept no answers; fewer than two models; models that were not
            trained and measured alike, unless that was wanted anyway; or that did not answer the same test texts.
    """
    listener.doing("finding the answers")
    name, entries = _entries(wanted, tracker)
    if len(entries) < 2:
        there = ", ".join(entry.contestant.name for entry in entries) or "none"
        raise RequestError(f"a comparison needs two models or more; found: {there}")
    unfair = judge(entries, wanted.anyway)
    check_aligned([entry.contestant.answers for entry in entries])
    missing = not_known(entries)
    configs, splits = _material(entries, tracker, cache, listener, missing)
    if wanted.learning_curve and not configs:  # before anything is timed
        raise RequestError("--learning-curve trains anew, and the training rows are not at hand")
    setting = Setting(
        name,
        wanted.made,
        margin=wanted.margin,
        unfair=unfair,
        lock=lock_lines(entries),
        starts=starts_of(entries),
        versions=stack_versions(),
    )
    costs = _costs(entries, wanted, tracker, listener, missing)
    curves = _curves(configs, tracker, cache, listener, missing) if wanted.learning_curve else {}
    if not wanted.leaks:
        missing["leaks"] = "it was not wanted (--no-leaks)"
    listener.doing("looking at disagreements, slices, truncation, leaks and labels")
    return look_into(
        [entry.contestant for entry in entries],
        setting,
        splits=None if splits is None else texts_of(splits),
        costs=costs,
        curves=curves,
        missing=missing,
        with_leaks=wanted.leaks,
    )


def compare_outcome(outcome: Outcome, made: str, *, thorough: bool = False) -> Compared:
    """What an experiment's models show, from what is still in memory: no costs beside each other, no learning curve.

    thorough: look at the training rows too, for leaks, wrong labels and what truncation loses: seconds for ten
    thousand short texts, minutes for fifty thousand long ones.
    """
    entries = [entry_of_candidate(candidate) for candidate in outcome.candidates]
    splits = outcome.material.splits
    setting = Setting(splits.name, made, lock=lock_lines(entries), starts=starts_of(entries), versions=stack_versions())
    return look_into(
        [entry.contestant for entry in entries],
        setting,
        splits=texts_of(splits) if thorough else None,
        missing={
            "costs": "valence compare times the models beside each other",
            **({} if thorough else {"leaks": "valence compare looks at the training rows"}),
        },
    )


def report_of_experiment(outcome: Outcome, artifacts: Path, made: str, *, thorough: bool = False) -> Path:
    """Write the report of an experiment that has just ended, keep it with its runs, and return where the page is.

    Arguments as `compare_outcome`. RequestError where the models cannot be compared.
    """
    compared = compare_outcome(outcome, made, thorough=thorough)
    page = default_page(compared, artifacts)
    write_report(compared, page)
    keep_report(compared, Tracker(artifacts))
    return page


def keep_report(compared: Compared, tracker: Tracker) -> None:
    """Add the report's files below `comparison/`, and the differences as metrics, to the run of every model."""
    metrics = metrics_of(compared)
    with tempfile.TemporaryDirectory() as folder:
        write_report(compared, Path(folder) / PAGE)
        for one in compared.contestants:
            if one.run_ids:
                tracker.attach_files(one.run_ids[0], Path(folder), REPORT_FOLDER)
                tracker.attach_metrics(one.run_ids[0], metrics[one.name])


def lock_lines(entries: Sequence[Entry]) -> tuple[LockLine, ...]:
    """What the figures depend on, for each entry; nothing where nothing is known of any."""
    locks = [entry.lock.to_dict() for entry in entries]
    if not any(value for lock in locks for value in lock.values()):
        return ()
    lines = [
        LockLine(meaning, tuple(_shown(field, lock[field]) for lock in locks))
        for field, meaning in fairness.MEANINGS.items()
    ]
    if any(lock["start"] for lock in locks):
        lines.append(LockLine(fairness.START, tuple(lock["start"] or fairness.RANDOM for lock in locks)))
    return tuple(lines)


def starts_of(entries: Sequence[Entry]) -> str:
    """What training started from, for each model; empty where all started from random weights."""
    return fairness.starts(*_named_locks(entries)) or ""


def judge(entries: Sequence[Entry], anyway: bool) -> str:
    """What makes the comparison unfair, empty where nothing does; RequestError unless that is wanted anyway.

    What is logged for none of them counts as the same here: `not_known` tells of it.
    """
    names, locks = _named_locks(entries)
    refused = fairness.refusal(names, locks)
    if refused and not anyway:
        raise RequestError(refused)
    return fairness.label(names, locks) or ""


def not_known(entries: Sequence[Entry]) -> dict[str, str]:
    """Why nobody can say whether the comparison is fair, as in `Compared.missing`; empty where all is known."""
    why = fairness.unknown(*_named_locks(entries))
    return {"fair comparison": why} if why else {}


def texts_of(splits: Splits) -> SplitTexts:
    """What `app.compared` needs of the splits."""
    texts = {name: split.texts for name, split in splits.items()}
    return SplitTexts(texts, splits.train.label_ids, splits.train.groups)


def _entries(wanted: Wanted, tracker: Tracker) -> tuple[str, list[Entry]]:
    """The name of the data, and the models."""
    folders = [Path(one) for one in wanted.references if is_version_folder(one)]
    runs = [one for one in wanted.references if not is_version_folder(one)]
    if not folders:
        if wanted.data is not None:
            raise RequestError("--data is for SavedModel folders: a run has kept its answers to its own test split")
        found = entries_of_runs(tracker, find_runs(tracker, runs))
        experiments = dict.fromkeys(entry.run.experiment for entry in found if entry.run is not None)
        return " and ".join(experiments), found
    if runs:
        raise RequestError(
            f"{folders[0]} is a SavedModel, {runs[0]} is not: compare folders with folders on --data, or runs with runs"
        )
    if wanted.data is None:
        raise RequestError(f"{folders[0]} is a SavedModel: name labelled texts to ask it with --data FILE")
    rows = read_labelled(wanted.data)
    return rows.name, entries_of_folders(folders, rows)


def _named_locks(entries: Sequence[Entry]) -> tuple[list[str], list[fairness.Lock]]:
    return [entry.contestant.name for entry in entries], [entry.lock for entry in entries]


def _material(
    entries: Sequence[Entry], tracker: Tracker, cache: Path, listener: Listening, missing: dict[str, str]
) -> tuple[dict[str, RunConfig], Splits | None]:
    """The configuration of every run by its model's name, and the splits of the first; `missing` says why not."""
    configs: dict[str, RunConfig] = {}
    listener.doing("reading the texts of all splits")
    try:
        for entry in entries:
            if entry.run is None:
                missing["leaks"] = "a SavedModel does not tell what it was trained on"
                return {}, None
            file = read_toml(tracker.fetch(entry.run.id, "config.toml"))
            configs[entry.contestant.name] = resolve_config(str(file.get("model_name")), file, (), {"cache": cache})
        first = next(iter(configs.values()))
        splits = load_splits(first.data, listener.downloaded)
    except (RequestError, DataError, TrackingError) as error:
        missing["leaks"] = str(error)
        return {}, None
    if splits.test.texts != entries[0].contestant.answers.texts:
        missing["leaks"] = f"{first.data.source} has other test texts now than when the models were trained"
        return {}, None
    return configs, splits


def _costs(
    entries: Sequence[Entry], wanted: Wanted, tracker: Tracker, listener: Listening, missing: dict[str, str]
) -> CostPanel | None:
    """Every model timed on the same texts, taking turns; None where one has no SavedModel."""
    if not wanted.costs:
        missing["costs"] = "it was not wanted (--no-costs)"
        return None
    listener.doing("timing the models beside each other")
    with tempfile.TemporaryDirectory() as folder:
        try:
            exports = {entry.contestant.name: _saved_model(entry, tracker, Path(folder)) for entry in entries}
        except (RequestError, TrackingError) as error:
            missing["costs"] = str(error)
            return None
        texts = entries[0].contestant.answers.texts[:COST_TEXTS]
        predictors = {name: Predictor(export) for name, export in exports.items()}
        speeds = measure_speeds(predictors, texts, rounds=COST_ROUNDS)
        sizes = {name: export_bytes(export) for name, export in exports.items()}
    models = [entry.contestant for entry in entries]
    return cost_panel(
        [
            ModelCost(one.name, one.training_cpu_seconds, one.parameters, sizes[one.name], speeds[one.name])
            for one in models
        ],
        {one.name: one.answers for one in models},
        price_per_cpu_hour=wanted.price_per_cpu_hour,
        price_per_error=wanted.price_per_error,
    )


def _saved_model(entry: Entry, tracker: Tracker, folder: Path) -> Path:
    if entry.run is None:
        assert entry.folder is not None
        return entry.folder
    registered = tracker.registered_version(entry.run.id)
    return tracker.download_saved_model(registered.name, registered.version, folder / entry.run.id)


def _curves(
    configs: Mapping[str, RunConfig], tracker: Tracker, cache: Path, listener: Listening, missing: dict[str, str]
) -> dict[str, LearningCurve]:
    """The learning curve of every model; one that cannot be trained on a part of the rows is named in `missing`."""
    configs = dict(zip(configs, locate(list(configs.values()), lambda: tracker), strict=True))
    first, *_ = configs.values()
    curves = {}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        material = prepare(first, Path(folder), listener)
        for name, config in configs.items():
            listener.doing(f"training {name} on growing parts of the rows")
            try:
                curves[name] = learning_curve(config.by_seed()[0], material, cache, listen=listener.epoch)
            except (FloatingPointError, RequestError) as error:
                failed.append(f"{name}: {error}")
    if failed:
        missing["learning curve"] = "; ".join(failed)
    return curves


def _shown(field: str, value: str) -> str:
    if not value:
        return fairness.UNKNOWN
    if field == "tuning_budget":
        return f"{value} min"
    return value[: fairness.SHORT] if len(value) == HASH else value
