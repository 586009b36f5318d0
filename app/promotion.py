"""Promotion: the alias `champion` and what is served move to another registered version, through the gates, and back.

Servers answer with the highest version folder below `exports`/<name>, so both ways a SavedModel is published there
under the next number: going back is a new folder with the old content, which every server picks up as it picks up any
other. The alias moves last. What an exception interrupts is undone at once; what a killed process left half done is
undone, or found to be complete, by the next promotion of that model.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.answer_files import read_answers
from app.errors import RequestError
from app.export import publish
from app.gate_figures import Side, check_parity, measure
from app.gates import Figures, GateResult, Gates, Parity, evaluate_gates, parity_result
from app.registry import CHAMPION, PREVIOUS, RegisteredVersion, Registry, differences
from app.run_records import ANSWERS
from app.serving.versions import version_folders
from app.version_journal import Intent, Journal, open_journal

# Folders beside the versions; the dot keeps servers from looking inside.
STAGING, WITHDRAWN = ".promoting-", ".withdrawn-"


@dataclass(frozen=True)
class Staged:
    """A registered version with its SavedModel, downloaded beside the versions that are served."""

    version: RegisteredVersion
    saved_model: Path


Measure = Callable[[Registry, Staged, Staged | None], Figures]


@dataclass(frozen=True)
class Promotion:
    """What came of a promotion, or of going back: `champion` is the one before, `export` the new version folder.

    `moved` is False after a refusal and after a dry run; nothing has changed then.
    """

    version: RegisteredVersion
    champion: RegisteredVersion | None
    gates: tuple[GateResult, ...]
    moved: bool
    export: Path | None

    @property
    def refused_by(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "name": self.version.name,
            "version": self.version.version,
            "model": self.version.model,
            "run_id": self.version.run_id,
            "champion_before": self.champion.version if self.champion else None,
            "gates": [gate.to_dict() for gate in self.gates],
            "passed": not self.refused_by,
            "moved": self.moved,
            "export": str(self.export) if self.export else None,
        }


def measure_staged(registry: Registry, challenger: Staged, champion: Staged | None) -> Figures:
    """Measure what the gates judge, on the test split, from the runs' answers and the SavedModels."""
    sides = [_side(registry, staged) for staged in (challenger, champion) if staged is not None]
    return measure(sides[0], sides[1] if champion is not None else None)


def promote(
    registry: Registry,
    run: str,
    exports: Path,
    gates: Gates,
    *,
    dry_run: bool = False,
    wait: bool = False,
    measure: Measure = measure_staged,
) -> Promotion:
    """Make the version that a run registered the champion, if it passes every gate; `dry_run` only evaluates them.

    `run` as the registry takes it: its id or the start of it, `name/version`, `name@alias`.

    Raises:
        RequestError: an unknown run, one that registered nothing, the champion itself, or one that was trained or
            tested on other data than the champion; another promotion of this model is under way.
    """
    version = registry.registered_version(run)
    with _turn(registry, version.name, exports, dry_run=dry_run, wait=wait) as turn:
        champion = turn.champion
        if champion is not None and champion.version == version.version:
            raise RequestError(f"{version} is the champion already")
        if champion is not None and (found := differences(version, champion)):
            raise RequestError(
                f"{version} and the champion, {champion}, are not on the same data: {', '.join(found)} differ. "
                "Train both on the same data"
            )
        challenger = turn.stage(version)
        rival = None if champion is None else turn.stage(champion)
        results = evaluate_gates(gates, measure(registry, challenger, rival))
        return turn.conclude(challenger, results)


def crown_winner(
    registry: Registry, run_id: str, exports: Path, gates: Gates, *, measure: Measure = measure_staged
) -> Promotion:
    """What `train` does with its best model: it becomes champion unless one on the same data stands in its way.

    Against a champion on the same data and the same split it has to pass the gates. Without one, or where that one
    was measured on other texts or is not exported, there is nothing to hold it against: it becomes champion at once.
    Another promotion of that model is waited for: what was trained is not given up.
    """
    version = registry.registered_version(run_id)
    champion = registry.aliased_version(version.name, CHAMPION)
    is_served = bool(version_folders(exports / version.name))
    if champion is not None and is_served and not differences(version, champion):
        return promote(registry, run_id, exports, gates, wait=True, measure=measure)
    with _turn(registry, version.name, exports, wait=True) as turn:
        return turn.conclude(turn.stage(version), ())


def roll_back(
    registry: Registry,
    name: str | None,
    exports: Path,
    *,
    dry_run: bool = False,
    check: Callable[[Path], Parity] = check_parity,
) -> Promotion:
    """Make the version under the alias `previous` the champion again; the one until now becomes `previous`.

    The only gate is parity: the version was judged when it became champion. Without `name` it is the only
    registered model that has a previous version.

    Raises:
        RequestError: there is no previous version, or there are several and no name.
    """
    name = name or _only_one_with_previous(registry)
    with _turn(registry, name, exports, dry_run=dry_run) as turn:
        previous = registry.aliased_version(name, PREVIOUS)
        if previous is None or (turn.champion is not None and previous.version == turn.champion.version):
            raise RequestError(f"{name} has no previous version to go back to: nothing has been promoted over another")
        staged = turn.stage(previous)
        return turn.conclude(staged, (parity_result(check(staged.saved_model)),))


@dataclass(frozen=True)
class _Turn:
    """The time in which one process alone may move the champion of `name`; `folder` is gone at its end."""

    registry: Registry
    name: str
    base: Path
    folder: Path
    journal: Journal
    champion: RegisteredVersion | None
    dry_run: bool

    def stage(self, version: RegisteredVersion) -> Staged:
        """Download a version's SavedModel to where publishing it is a rename."""
        return Staged(version, _download(self.registry, version, self.folder))

    def conclude(self, staged: Staged, results: tuple[GateResult, ...]) -> Promotion:
        """Move if every gate has passed and it is not a dry run."""
        passed = all(result.passed for result in results)
        export = self._move(staged) if passed and not self.dry_run else None
        return Promotion(staged.version, self.champion, results, export is not None, export)

    def _move(self, staged: Staged) -> Path:
        """Publish, then move the aliases, the champion's last; undo all of it if anything fails."""
        registry, name, version = self.registry, self.name, staged.version.version
        if _number(registry.aliased_version(name, CHAMPION)) != _number(self.champion):
            raise RequestError(f"the champion of {name} was changed meanwhile, by hand or elsewhere: promote again")
        intent = Intent(
            version=version,
            export=str(1 + max(version_folders(self.base), default=0)),
            previous=_number(registry.aliased_version(name, PREVIOUS)),
        )
        self.journal.write(intent)
        try:
            export = publish(staged.saved_model, self.base)
            if export.name != intent.export:  # somebody else took that number, for a folder that must not be undone
                self.journal.write(intent.model_copy(update={"export": export.name}))
            registry.tag_version(name, version, "export", str(export))
            if self.champion is not None:
                registry.set_alias(name, PREVIOUS, self.champion.version)
            registry.set_alias(name, CHAMPION, version)
        except BaseException:
            _settle(registry, name, self.base, self.journal)
            raise
        self.journal.write(None)
        return export


@contextlib.contextmanager
def _turn(
    registry: Registry, name: str, exports: Path, *, dry_run: bool = False, wait: bool = False
) -> Iterator[_Turn]:
    base = exports / name
    with open_journal(base, wait=wait) as journal:
        for leftover in (*base.glob(f"{STAGING}*"), *base.glob(f"{WITHDRAWN}*")):
            shutil.rmtree(leftover)  # of a process that was killed: this one holds the lock
        if not dry_run:
            _settle(registry, name, base, journal)
        champion = registry.aliased_version(name, CHAMPION)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=base) as folder:
            yield _Turn(registry, name, base, Path(folder), journal, champion, dry_run)


def _settle(registry: Registry, name: str, base: Path, journal: Journal) -> None:
    """Bring what is served and the aliases together again after a promotion that broke off.

    If the champion moved, what is left is done; else what was done is undone. A store that does not answer leaves
    open which of the two it is: the old champion is served then, and the next promotion looks again.
    """
    intent = journal.read()
    if intent is None:
        return
    export = base / intent.export
    try:
        champion = registry.aliased_version(name, CHAMPION)
    except RuntimeError:
        _withdraw(export)
        raise
    if champion is not None and champion.version == intent.version:
        if not export.is_dir():
            with tempfile.TemporaryDirectory(prefix=STAGING, dir=base) as folder:
                publish(_download(registry, champion, Path(folder)), base)
    else:
        _withdraw(export)
        registry.set_alias(name, PREVIOUS, intent.previous)
    journal.write(None)


def _withdraw(export: Path) -> None:
    """Take a version folder away, all at once for who looks at the folder of versions."""
    if export.is_dir():
        aside = export.with_name(f"{WITHDRAWN}{export.name}")
        export.rename(aside)
        shutil.rmtree(aside)


def _download(registry: Registry, version: RegisteredVersion, folder: Path) -> Path:
    return registry.download_saved_model(version.name, version.version, folder / f"version-{version.version}")


def _side(registry: Registry, staged: Staged) -> Side:
    version = staged.version
    answers = read_answers(registry.fetch(version.run_id, ANSWERS))
    if "test" not in answers:
        raise RequestError(f"run {version.run_id} keeps no answers on the test split, only {', '.join(answers)}")
    return Side(answers["test"], staged.saved_model)


def _only_one_with_previous(registry: Registry) -> str:
    names = registry.aliased_models(PREVIOUS)
    if len(names) == 1:
        return names[0]
    if names:
        raise RequestError(f"several models have a previous version: name one of {', '.join(names)}")
    raise RequestError("no model has a previous version to go back to: nothing has been promoted over another")


def _number(version: RegisteredVersion | None) -> str | None:
    return None if version is None else version.version
