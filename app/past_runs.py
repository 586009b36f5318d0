"""Runs of earlier commands, found by what a person calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import RequestError

PARENT = "mlflow.parentRunId"
SEARCH = "search"
"""The tag of a run whose children are the trials of a search: it has no answers and stands in no comparison."""
SHORTEST_PREFIX = 4  # of a run's id
SHOWN = 10  # of what is there, in an error


@dataclass(frozen=True)
class PastRun:
    """A run as MLflow keeps it; `artifacts` are the names of its top-level files and folders."""

    id: str
    name: str
    experiment: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifacts: tuple[str, ...]

    @property
    def model(self) -> str:
        """Which model was trained: "lstm"."""
        return self.params.get("model_name", self.name)


class RunFinder:
    """Looks runs up in one store. `client` is an `mlflow.MlflowClient`."""

    def __init__(self, client: Any, where: str) -> None:
        self._client = client
        self._where = where

    def of_experiment(self, experiment: str, *, latest: bool = False) -> list[PastRun]:
        """Return the finished runs of an experiment, newest first, those of single seeds and of searches left out.

        With `latest` only the newest of each model. RequestError when there is no such experiment, or no such run.
        """
        found = self._client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage == "deleted":
            raise RequestError(f"{self._where} has no experiment {experiment!r}. {self._experiments_there()}")
        every = self._search([found.experiment_id])
        top_level = [run for run in every if not {PARENT, SEARCH} & set(run.data.tags)]
        runs = [self._past(run) for run in top_level if run.info.status == "FINISHED"]
        if not runs:
            states = ", ".join(sorted({run.info.status.lower() for run in top_level})) or "none"
            raise RequestError(f"the experiment {experiment!r} has no finished run (runs there: {states})")
        newest: dict[str, PastRun] = {}
        for run in runs:
            newest.setdefault(run.model, run)
        return list(newest.values()) if latest else runs

    def of_reference(self, reference: str, experiment: str | None = None) -> PastRun:
        """Return the run that is meant by its id or the start of it, `name@alias`, `name/version`, or its name.

        By name (`lstm`) the newest finished run of `experiment`, which must be given for that.
        """
        if found := re.fullmatch(r"(.+)@([^@/]+)", reference):
            return self._of_alias(*found.groups())
        if found := re.fullmatch(r"(.+)/(\d+)", reference):
            return self._of_version(*found.groups())
        if re.fullmatch(rf"[0-9a-f]{{{SHORTEST_PREFIX},32}}", reference):
            return self._of_id(reference)
        if experiment is not None:
            return self._of_name(reference, experiment)
        raise RequestError(
            f"{reference!r} names no run: give an id of MLflow or its first {SHORTEST_PREFIX} or more characters, "
            f"name@alias or name/version of a registered model. {self._experiments_there()}"
        )

    def seeds_of(self, run: PastRun) -> list[PastRun]:
        """Return the finished runs of the seeds of a run, by seed; of a run without such the run itself."""
        info = self._client.get_run(run.id).info
        children = self._search(
            [info.experiment_id], f"tags.`{PARENT}` = '{run.id}' AND attributes.status = 'FINISHED'"
        )
        seeds = sorted((self._past(child) for child in children), key=lambda seed: int(seed.params.get("seed", "0")))
        return seeds or [run]

    def artifacts_of(self, run_id: str) -> tuple[str, ...]:
        """Return the names of a run's top-level files and folders."""
        return tuple(file.path for file in self._client.list_artifacts(run_id))

    def _of_alias(self, name: str, alias: str) -> PastRun:
        aliases = self._registered(name).aliases
        if alias not in aliases:
            there = ", ".join(f"{known} (version {version})" for known, version in sorted(aliases.items())) or "none"
            raise RequestError(f"the registered model {name} has no alias {alias!r}. Aliases there: {there}")
        return self._of_version(name, str(aliases[alias]))

    def _of_version(self, name: str, version: str) -> PastRun:
        self._registered(name)
        versions = {str(one.version): one for one in self._client.search_model_versions(f"name = {quoted(name)}")}
        if version not in versions:
            there = ", ".join(sorted(versions, key=int)) or "none"
            raise RequestError(f"the registered model {name} has no version {version}. Versions there: {there}")
        return self._past(self._client.get_run(versions[version].run_id))

    def _registered(self, name: str) -> Any:
        found = self._client.search_registered_models(f"name = {quoted(name)}")
        if not found:
            there = ", ".join(sorted(model.name for model in self._client.search_registered_models())) or "none"
            raise RequestError(f"{self._where} has no registered model {name!r}. Models there: {there}")
        return found[0]

    def _of_id(self, prefix: str) -> PastRun:
        every = [experiment.experiment_id for experiment in self._client.search_experiments()]
        found = self._search(every, f"attributes.run_id LIKE '{prefix}%'")
        if len(found) == 1:
            return self._past(found[0])
        if not found:
            raise RequestError(f"{self._where} has no run {prefix}. {self._experiments_there()}")
        which = ", ".join(f"{run.info.run_id} ({run.info.run_name})" for run in found[:SHOWN])
        raise RequestError(f"{prefix} is the start of {len(found)} runs: {which}. Give more of the one that is meant")

    def _of_name(self, name: str, experiment: str) -> PastRun:
        runs = self.of_experiment(experiment)
        for run in runs:
            if run.name == name:
                return run
        there = ", ".join(dict.fromkeys(run.name for run in runs))
        raise RequestError(f"the experiment {experiment!r} has no finished run called {name!r}. Runs there: {there}")

    def _search(self, experiment_ids: list[str], condition: str = "") -> list[Any]:
        """All runs that are not deleted, newest first."""
        runs: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs(
                experiment_ids, condition, order_by=["attributes.start_time DESC"], page_token=token
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def _past(self, run: Any) -> PastRun:
        return PastRun(
            id=run.info.run_id,
            name=run.info.run_name,
            experiment=self._client.get_experiment(run.info.experiment_id).name,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            artifacts=self.artifacts_of(run.info.run_id),
        )

    def _experiments_there(self) -> str:
        names = sorted(experiment.name for experiment in self._client.search_experiments())
        more = ", ..." if len(names) > SHOWN else ""
        return f"Experiments there: {', '.join(names[:SHOWN]) or 'none'}{more}"


def quoted(value: str) -> str:
    """Write a value for a filter of MLflow, whose strings know no escapes."""
    quote = '"' if "'" in value else "'"
    return f"{quote}{value}{quote}"
