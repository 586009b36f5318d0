"""Find the runs of `valence pretrain` that a configuration starts from, and fetch what they left."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from app.config import RunConfig
from app.errors import RequestError
from app.initial_weights import FACTS, Facts, InitConfig, describe
from app.past_runs import PastRun
from app.tracking import Tracker

EXPERIMENT = "pretraining"
FOLDER = "pretrained"
"""The folder among a run's artifacts that `app.initial_weights.Pretrained` writes and reads."""


def locate(configs: Sequence[RunConfig], open_tracker: Callable[[], Tracker]) -> list[RunConfig]:
    """Return the configurations with the runs they start from as ids, with their folders, and with that in words.

    Raises:
        RequestError: a run is not there, or is none of `valence pretrain`.
    """
    if not any(config.init.runs or config.init.vectors for config in configs):
        return list(configs)
    found = {init: locate_init(init, open_tracker) for init in {config.init for config in configs}}
    return [_of_model(config, found[config.init]) for config in configs]


def locate_init(init: InitConfig, open_tracker: Callable[[], Tracker]) -> InitConfig:
    """Return the runs as ids, with their folders. RequestError as `locate`."""
    if not init.runs:
        return init
    tracker = open_tracker()
    runs = [find(tracker, reference) for reference in init.runs]
    folders = tuple(tracker.fetch(run.id, FOLDER) for run in runs)
    return init.model_copy(update={"runs": tuple(run.id for run in runs), "folders": folders})


def find(tracker: Tracker, reference: str) -> PastRun:
    """Return the pretraining run of that id, or the newest finished one of that name.

    Raises:
        RequestError: there is none.
    """
    (run,) = tracker.find_runs(reference, experiment=EXPERIMENT)
    if FOLDER not in run.artifacts:
        raise RequestError(
            f"run {run.id} ({run.name} of {run.experiment}) is no finished run of valence pretrain: it left no {FOLDER}"
        )
    return run


def facts_of(init: InitConfig) -> list[Facts]:
    """Return what the located runs say of themselves."""
    return [Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8"))) for folder in init.folders]


def _of_model(config: RunConfig, init: InitConfig) -> RunConfig:
    said = describe(config.model_name, facts_of(init), init.vectors)
    return config.model_copy(update={"init": init.model_copy(update={"starts_from": said})})
