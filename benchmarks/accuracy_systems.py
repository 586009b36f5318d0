"""What can be trained on a data set, ours and peers: each is a `System` with a name, settings and one function."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from code_version import version_of_models, version_of_script
from peers import PEERS, Peer
from silent import Silent
from trained_runs import RunKey, TrainedRecord, settings_hash

from app.config import RunConfig
from app.metrics import METRICS, Examples
from app.training import Material, prepare, train
from data.splits import Splits


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training leaves: probabilities float[n, c] on test, and what it cost."""

    probabilities: np.ndarray
    training_cpu_seconds: float
    preparation_cpu_seconds: float
    parameters: int
    details: dict[str, Any]
    encoder_accuracy: float | None = None
    """Of our model's encoder on test without the n-grams beside it; None where there are none."""


class System(Protocol):
    """Something that learns from the training and validation split and answers on test."""

    @property
    def name(self) -> str:
        """As the table shows it."""

    @property
    def one_seed_is_enough(self) -> bool:
        """Whether every seed gives the same answers."""

    @property
    def missing(self) -> str | None:
        """Why it cannot be trained here; None where it can."""

    @property
    def version(self) -> str:
        """Of the code that it would be trained with now."""

    def configuration(self, seed: int) -> dict[str, Any]:
        """All settings but the data and the seed, JSON-able: what the run is known by."""

    def outside_text(self) -> str | None:
        """What text beyond the training split it learns from."""

    def train(self, splits: Splits, seed: int) -> Trained:
        """Learn and answer."""


@dataclass
class MaterialCache:
    """Makes vocabulary and batches for configurations that ask for the same only once, keeping the last."""

    folder: Path
    _files: Path | None = None  # of the last material: its large splits are read from there as long as it is used
    _key: str | None = None
    _made: tuple[Material, float] | None = None

    def material(self, config: RunConfig) -> tuple[Material, float]:
        """Return what `app.training.prepare` makes of the configuration, and the CPU seconds that it took."""
        shared = config.model_dump(mode="json", exclude={"model", "fit", "model_name", "seed", "seeds"})
        key = settings_hash(shared)
        if self._made is None or self._key != key:
            self._made = None  # before the next one is made, so that there are never two in memory
            if self._files is not None:
                shutil.rmtree(self._files)
            self._files = Path(tempfile.mkdtemp(prefix="material-", dir=self.folder))
            before = time.process_time()
            material = prepare(config, self._files, Silent())
            self._key, self._made = key, (material, time.process_time() - before)
        return self._made


@dataclass(frozen=True)
class ModelSystem:
    """One of the models of this project, with its configuration."""

    name: str
    config: RunConfig
    materials: MaterialCache = field(repr=False)
    one_seed_is_enough: bool = False
    missing: str | None = None
    version: str = field(default_factory=version_of_models)

    def configuration(self, seed: int) -> dict[str, Any]:
        """The run's configuration less its data, which the splits' fingerprint stands for, and its seeds.

        Without `init` where that says nothing, so that runs from before there was such a section are found.
        """
        starts = said_of_init(getattr(self.config, "init", None)) is not None
        return self.config.model_dump(mode="json", exclude={"data", "seed", "seeds", *(() if starts else ("init",))})

    def outside_text(self) -> str | None:
        """What the run starts from."""
        return said_of_init(getattr(self.config, "init", None))

    def train(self, splits: Splits, seed: int) -> Trained:
        """As the command `train` does, without tracking and export."""
        material, preparation = self.materials.material(self.config)
        if material.splits.fingerprint != splits.fingerprint:
            raise RuntimeError(f"{self.name} was given other splits than the rest of the table")
        clock = _LastReport()
        run = train(self.config.model_copy(update={"seed": seed, "seeds": 1}), material, clock)
        history = run.history
        return Trained(
            probabilities=run.test_probabilities,
            training_cpu_seconds=clock.cpu_seconds,
            preparation_cpu_seconds=preparation,
            parameters=int(run.model.count_params()),
            details={
                "validation_log_loss": run.validation_log_loss,
                "epochs": len(history.loss),
                "best_epoch": history.best_epoch,
                "ended": history.ended,
                "seconds": history.seconds,
            },
            encoder_accuracy=run.encoder_evaluation and run.encoder_evaluation.metrics["accuracy"].value,
        )


class _LastReport:
    """Listens to a training for the CPU seconds from now to its last report, the end of the last epoch."""

    def __init__(self) -> None:
        self._started = time.process_time()
        self.cpu_seconds = 0.0

    def __call__(self, report: object) -> None:
        self.cpu_seconds = time.process_time() - self._started


@dataclass(frozen=True)
class PeerSystem:
    """A peer, with the interpreter that it runs in where it is not this one."""

    peer: Peer
    python: Path | None
    refit: bool

    @property
    def name(self) -> str:
        """As the table shows it."""
        return self.peer.title

    @property
    def one_seed_is_enough(self) -> bool:
        """Whether every seed gives the same answers."""
        return self.peer.deterministic

    @property
    def missing(self) -> str | None:
        """What would have to be installed."""
        return self.peer.missing(self.python)

    @property
    def version(self) -> str:
        """Of its script."""
        return version_of_script(self.peer.script)

    def configuration(self, seed: int) -> dict[str, Any]:
        """The peer's own settings, the grid that it chooses from among them, and `refit` where that does anything."""
        refit = {"refit": self.refit} if self.peer.can_refit else {}
        return {"peer": self.peer.name, **refit, **self.peer.settings}

    def outside_text(self) -> str | None:
        """No peer uses any."""
        return None

    def train(self, splits: Splits, seed: int) -> Trained:
        """Choose its settings on validation, learn from training, answer on test."""
        found = self.peer.run(splits, seed, self.refit, self.python)
        return Trained(found.probabilities, found.cpu_seconds, 0.0, found.parameters, found.details)


def peer_systems(names: Sequence[str], python: Path | None, refit: bool) -> list[System]:
    """The peers that were named."""
    return [PeerSystem(PEERS[name], python, refit) for name in names]


def said_of_init(init: Any) -> str | None:
    """What a run starts from: the words that `init.starts_from` has, else its `runs` and its file of `vectors`.

    None where a configuration has no section `init`, or one that names nothing: random weights.
    """
    if init is None:
        return None
    named = [*(f"run {run}" for run in init.runs), *([f"vectors {init.vectors.name}"] if init.vectors else [])]
    return init.starts_from or ", ".join(named) or None


def key_of(system: System, splits: Splits, seed: int) -> RunKey:
    """What the run is found by."""
    settings = settings_hash(system.configuration(seed))
    return RunKey(data_fingerprint=splits.fingerprint, system=system.name, settings=settings, seed=seed)


def record_of(system: System, splits: Splits, seed: int, trained: Trained) -> TrainedRecord:
    """A finished training as it is kept."""
    examples = Examples(splits.test.label_ids.astype(np.int64), trained.probabilities)
    once = np.ones((1, len(splits.test)))
    metrics = {name: float(METRICS[name](examples)(once)[0]) for name in ("accuracy", "macro_f1", "log_loss")}
    return TrainedRecord(
        key=key_of(system, splits, seed),
        data=splits.name,
        train_rows=len(splits.train),
        validation_rows=len(splits.validation),
        test_rows=len(splits.test),
        label_names=splits.label_names,
        **metrics,
        training_cpu_seconds=trained.training_cpu_seconds,
        preparation_cpu_seconds=trained.preparation_cpu_seconds,
        parameters=trained.parameters,
        outside_text=system.outside_text(),
        encoder_accuracy=trained.encoder_accuracy,
        configuration=system.configuration(seed),
        details=trained.details,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=commit(),
        code=system.version,
    )


def commit() -> str | None:
    """The commit that this code stands at, a "+" behind it where files were changed; None outside a repository."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", ":/app", ":/models", ":/data")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
