"""What is compared, from what a person calls it: runs of MLflow, registered models, experiments, SavedModel folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.answer_files import read_answers
from app.answers import Answers
from app.candidates import Candidate, best_seed
from app.compared import Contestant
from app.errors import RequestError
from app.fairness import RANDOM, TAG, Lock, make_lock
from app.past_runs import SHORTEST_PREFIX, PastRun
from app.run_records import ANSWERS
from app.saved_model_answers import LabelledTexts, ask, told_temperature
from app.tracking import Tracker

SAVED_MODEL = "saved_model.pb"
SHORT_ID = 8  # characters of a run's id that people are shown
# Versions that a run carries as tags and that its figures may depend on.
VERSIONS = ("tensorflow", "keras", "valence")
OF_A_RUN = re.compile(rf".+@[^@/]+|.+/\d+|[0-9a-f]{{{SHORTEST_PREFIX},32}}")


@dataclass(frozen=True, eq=False)
class Entry:
    """One model to compare. lock: what its figures depend on; run: None for a SavedModel on disk, whose folder is."""

    contestant: Contestant
    lock: Lock
    run: PastRun | None = None
    folder: Path | None = None


def is_version_folder(reference: str) -> bool:
    """Whether a reference is a SavedModel on this disk."""
    return (Path(reference) / SAVED_MODEL).is_file()


def find_runs(tracker: Tracker, references: Sequence[str]) -> list[PastRun]:
    """The runs that are meant, each once: an id or its start, `name@alias`, `name/version`, or an experiment.

    Raises:
        RequestError: nothing is meant by a reference; the message names what is there.
    """
    found: dict[str, PastRun] = {}
    for reference in references:
        named = OF_A_RUN.fullmatch(reference)
        # An experiment's runs come newest first; in the order of their training they read as they were asked for.
        runs = tracker.find_runs(reference) if named else tracker.find_runs(experiment=reference, latest=True)[::-1]
        found |= {run.id: run for run in runs}
    return list(found.values())


def entries_of_runs(tracker: Tracker, runs: Sequence[PastRun]) -> list[Entry]:
    """The runs with their answers on the test split. Names that several have get the run's id behind them.

    Raises:
        RequestError: a run has no answers, as runs of before these were kept.
    """
    names = [run.model for run in runs]
    titles = [
        name if names.count(name) == 1 else f"{name} {run.id[:SHORT_ID]}" for name, run in zip(names, runs, strict=True)
    ]
    return [_of_run(tracker, run, title) for run, title in zip(runs, titles, strict=True)]


def entries_of_folders(folders: Sequence[Path], rows: LabelledTexts) -> list[Entry]:
    """SavedModels with their answers to labelled texts; how they were trained is not known."""
    return [
        Entry(
            Contestant(
                name,
                (ask(folder, name, rows),),
                origin=f"SavedModel {folder}",
                knows_temperature=told_temperature(folder) is not None,
            ),
            Lock(),
            folder=folder,
        )
        for folder, name in zip(folders, _folder_names(folders), strict=True)
    ]


def entry_of_candidate(candidate: Candidate) -> Entry:
    """A model that was trained just now."""
    seeds = candidate.seeds
    material, config = candidate.run.material, candidate.run.config
    contestant = Contestant(
        name=candidate.run.name,
        seeds=tuple(seed.run.answers(candidate.run.name)["test"] for seed in seeds),
        seed_names=tuple(f"seed {seed.run.config.seed}" for seed in seeds),
        exported=seeds.index(best_seed(seeds)),
        training_seconds=_mean([seed.run.history.seconds for seed in seeds]),
        training_cpu_seconds=_mean([seed.run.history.cpu_seconds for seed in seeds]),
        milliseconds_per_text=candidate.milliseconds_per_text,
        parameters=int(candidate.run.model.count_params()),
        truncation=config.pipeline.truncation,
        origin=f"run {candidate.run_id[:SHORT_ID]} of {material.splits.name}",
        facts=_starts_from(config.init.starts_from),
        run_ids=(candidate.run_id, *(seed.run_id for seed in seeds if seed.run_id != candidate.run_id)),
    )
    return Entry(contestant, make_lock(material.fingerprints, config))


def _of_run(tracker: Tracker, run: PastRun, title: str) -> Entry:
    seeds = tracker.seeds_of(run)
    answers = [_test_answers(tracker, seed) for seed in seeds]
    exported = run.tags.get("exported_seed", seeds[0].params.get("seed", "0"))
    metrics = run.metrics
    parameters = metrics.get("parameters")
    contestant = Contestant(
        name=title,
        seeds=tuple(replace(one, name=title) for one in answers),
        seed_names=tuple(f"seed {seed.params.get('seed', '?')}" for seed in seeds),
        exported=next((place for place, seed in enumerate(seeds) if seed.params.get("seed") == exported), 0),
        training_seconds=metrics.get("training_seconds", float("nan")),
        training_cpu_seconds=metrics.get("training_cpu_seconds"),
        milliseconds_per_text=metrics.get("milliseconds_per_text", float("nan")),
        parameters=None if parameters is None else int(parameters),
        truncation="head+tail" if run.params.get("pipeline.truncation") == "head+tail" else "head",
        origin=f"run {run.id[:SHORT_ID]} of {run.experiment}",
        facts={
            **{name: run.tags[f"version.{name}"] for name in VERSIONS if f"version.{name}" in run.tags},
            **_starts_from(run.tags.get(f"{TAG}start", "")),
        },
        run_ids=(run.id, *(seed.id for seed in seeds if seed.id != run.id)),
    )
    return Entry(contestant, Lock.from_tags(run.tags), run=run)


def _starts_from(start: str) -> dict[str, str]:
    return {"starts from": start or RANDOM}


def _test_answers(tracker: Tracker, run: PastRun) -> Answers:
    if ANSWERS not in run.artifacts:
        raise RequestError(
            f"run {run.id[:SHORT_ID]} ({run.name}) of {run.experiment} has kept no answers: it is of an older version. "
            "Train it again, or compare its exports: valence compare FOLDER FOLDER --data FILE"
        )
    answers = read_answers(tracker.fetch(run.id, ANSWERS))
    if "test" not in answers:
        raise RequestError(
            f"run {run.id[:SHORT_ID]} ({run.name}) has answers on {', '.join(answers)} only, not on test"
        )
    return answers["test"]


def _folder_names(folders: Sequence[Path]) -> list[str]:
    """`name/version`, or the whole path where that is not enough to tell them apart."""
    short = ["/".join(folder.resolve().parts[-2:]) for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
