"""MLflow: where every run, its data, its figures and its model are kept. The only file that imports mlflow."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import logging
import math
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

# Who reads other people's reviews tells nobody about it: MLflow's usage reports are off unless asked for. MLflow
# decides while it is imported, so this stands before the import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Files that are copied in milliseconds need no bar.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

import app
from app.errors import RequestError
from app.past_runs import PARENT, PastRun, RunFinder, quoted
from app.registry import RegisteredVersion
from app.serving.pyfunc import OUTPUT, OUTPUTS
from data.splits import Splits

STACK = ("tensorflow", "tensorflow-text", "keras", "keras-hub", "tokenizers", "mlflow", "numpy", "pandas")
# What the code that is logged with a model imports.
SERVING_REQUIREMENTS = ("tensorflow", "tensorflow-text", "tensorflow-serving-api", "protobuf", "numpy", "pandas")
DESCRIPTION = "mlflow.note.content"
ERROR = "error"  # tag: why a run failed
QUIET_LOGGERS = ("mlflow", "alembic")


class TrackingError(RuntimeError):
    """The tracking server or store did not do what it was asked."""


class Tracker:
    """The tracking server or local store that runs are written to."""

    def __init__(self, artifacts: Path) -> None:
        """Use MLFLOW_TRACKING_URI, or else SQLite at `artifacts`/mlflow.db, made here if it is not there.

        Raises:
            RequestError: nothing that can be used answers there.
        """
        self.uri = tracking_uri(artifacts)
        named = os.environ.get("MLFLOW_TRACKING_URI")
        self._artifact_location = None if named else (artifacts / "mlruns").resolve()
        self._cache = artifacts / "cache"
        for name in QUIET_LOGGERS:  # each start would list database migrations and pip's opinion of versions
            logging.getLogger(name).setLevel(logging.ERROR)
        if self._artifact_location:
            artifacts.mkdir(parents=True, exist_ok=True)
        try:
            mlflow.set_tracking_uri(self.uri)
            if not named:  # MLflow has just set it, and a second Tracker would take it for the user's wish
                os.environ.pop("MLFLOW_TRACKING_URI", None)
            self.client = mlflow.MlflowClient()
            # The first call makes the database; two processes that make it at once would fail.
            self.client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            raise RequestError(f"MLflow cannot use {self.uri}: {_first_line(error)}") from error
        self._finder = RunFinder(self.client, self.uri)

    @contextlib.contextmanager
    def run(self, experiment: str, name: str, *, nested: bool = False, run_id: str | None = None) -> Iterator[Run]:
        """Open a run called `name`, `nested` in the one that is open; with `run_id` go on with that one. It ends
        FINISHED, or FAILED with the reason in the tag `error`.
        """
        with (
            _mlflow_errors(),
            mlflow.start_run(run_id, self._experiment_id(experiment), run_name=name, nested=nested) as active,
        ):
            mlflow.set_tags(stack_versions())
            if ERROR in active.data.tags:  # of an earlier start, which this one goes on from
                mlflow.delete_tag(ERROR)
            try:
                yield Run(active.info.run_id)
            except BaseException as error:
                mlflow.set_tag(ERROR, f"{type(error).__name__}: {_first_line(error)}")
                raise

    def has_run(self, run_id: str) -> bool:
        """Return whether this store has a run of that id which nobody has deleted."""
        with _mlflow_errors():
            there = [experiment.experiment_id for experiment in self.client.search_experiments()]
            return bool(self.client.search_runs(there, f"attributes.run_id = '{run_id}'", max_results=1))

    def end(self, run_id: str, status: Literal["FAILED", "KILLED"]) -> None:
        """End a run that did not end by itself, or with the wrong status; one that is not in this store is let be."""
        if self.has_run(run_id):
            with _mlflow_errors():
                self.client.set_terminated(run_id, status)

    def find_runs(self, *references: str, experiment: str | None = None, latest: bool = False) -> tuple[PastRun, ...]:
        """Return the runs of earlier commands that are meant, each once, in the order of the references.

        A reference is a run's id or the start of it, `name@alias` or `name/version` of a registered model, or, where
        `experiment` is given, a run's name there. Without references: all finished runs of `experiment`, newest
        first, those of single seeds left out (see `seeds_of`); with `latest` the newest of each model.

        Raises:
            RequestError: nothing is meant by a reference, or more than one run; the message names what is there.
        """
        with _mlflow_errors():
            if references:
                found = [self._finder.of_reference(reference, experiment) for reference in references]
            elif experiment is not None:
                found = self._finder.of_experiment(experiment, latest=latest)
            else:
                raise RequestError("name runs, or an experiment")
        return tuple({run.id: run for run in found}.values())

    def seeds_of(self, run: PastRun) -> tuple[PastRun, ...]:
        """Return the finished runs of a run's seeds, by seed; of a run of a single seed the run itself."""
        with _mlflow_errors():
            return tuple(self._finder.seeds_of(run))

    def fetch(self, run_id: str, path: str) -> Path:
        """Return where a run's artifact is on this disk: a file or a folder, downloaded from a server if need be.

        What comes from a server is kept below `artifacts`/cache/runs. RequestError when the run has no such artifact.
        """
        with _mlflow_errors():
            there = self._finder.artifacts_of(run_id)
            if path.split("/")[0] not in there:
                raise RequestError(f"run {run_id} has no artifact {path}. It has: {', '.join(there) or 'none'}")
            if self._artifact_location:
                return Path(self.client.download_artifacts(run_id, path))
            target = self._cache / "runs" / run_id
            target.mkdir(parents=True, exist_ok=True)
            return Path(self.client.download_artifacts(run_id, path, str(target)))

    def describe(self, run_id: str, markdown: str) -> None:
        """Set the description that the UI shows above a run that has ended."""
        with _mlflow_errors():
            self.client.set_tag(run_id, DESCRIPTION, markdown)

    def attach(self, run_id: str, path: str, content: Mapping[str, Any]) -> None:
        """Add a JSON artifact to a run that has ended."""
        with _mlflow_errors():
            self.client.log_dict(run_id, dict(content), path)

    def attach_files(self, run_id: str, folder: Path, path: str) -> None:
        """Add the files of a folder as artifacts below `path` to a run that has ended."""
        with _mlflow_errors():
            self.client.log_artifacts(run_id, str(folder), path)

    def attach_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a run that has ended, all in one request; what is undefined or infinite is left out."""
        now = int(1_000 * time.time())
        finite = [Metric(name, value, now, 0) for name, value in metrics.items() if math.isfinite(value)]
        with _mlflow_errors():
            self.client.log_batch(run_id, metrics=finite)

    def _experiment_id(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            location = self._artifact_location.as_uri() if self._artifact_location else None
            return str(self.client.create_experiment(name, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":  # in the UI, where that is one click
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    # What `app.promotion` needs: see `app.registry.Registry`.

    def registered_version(self, reference: str) -> RegisteredVersion:
        """Return the version that a run registered; the run as for `find_runs`.

        Raises:
            RequestError: nothing is meant by the reference, or the run registered no model.
        """
        (run,) = self.find_runs(reference)
        with _mlflow_errors():
            found = self.client.search_model_versions(f"run_id = '{run.id}'")
            if found:
                return _registered(max(found, key=lambda version: int(version.version)))
            newest = self.client.search_model_versions(order_by=["creation_timestamp DESC"], max_results=5)
        there = ", ".join(f"{version.run_id} ({_registered(version)})" for version in newest) or "none"
        parent = run.tags.get(PARENT)
        hint = f"The run it is part of is {parent}." if parent else f"Runs that did, newest first: {there}"
        raise RequestError(f"run {run.id} ({run.name}) registered no model. {hint}")

    def aliased_version(self, name: str, alias: str) -> RegisteredVersion | None:
        """Return the version that an alias of a registered model points at, None where there is none."""
        with _mlflow_errors():
            models = self.client.search_registered_models(f"name = {quoted(name)}")
            version = models[0].aliases.get(alias) if models else None
            return None if version is None else _registered(self.client.get_model_version(name, str(version)))

    def aliased_models(self, alias: str) -> list[str]:
        """Return the names of the registered models that have this alias, in order."""
        with _mlflow_errors():
            return sorted(model.name for model in self.client.search_registered_models() if alias in model.aliases)

    def set_alias(self, name: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None takes the alias away."""
        with _mlflow_errors():
            if version is None:
                self.client.delete_registered_model_alias(name, alias)
            else:
                self.client.set_registered_model_alias(name, alias, version)

    def tag_version(self, name: str, version: str, key: str, value: str) -> None:
        """Set a tag of a registered version."""
        with _mlflow_errors():
            self.client.set_model_version_tag(name, version, key, value)

    def download_saved_model(self, name: str, version: str, folder: Path) -> Path:
        """Copy the SavedModel of a registered version below `folder` and return where it is."""
        with _mlflow_errors():
            uri = self.client.get_model_version_download_uri(name, version)
            logged = mlflow.artifacts.download_artifacts(
                uri, dst_path=str(folder), tracking_uri=self.uri, registry_uri=self.uri
            )
            of_pyfunc = mlflow.models.Model.load(logged).flavors.get("python_function", {})
        saved_model = Path(logged) / of_pyfunc.get("data", "")
        if not (saved_model / "saved_model.pb").is_file():
            raise TrackingError(f"{name} version {version} is no SavedModel that was logged here")
        return saved_model


class Run:
    """One MLflow run that is open."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters; None is left out."""
        mlflow.log_params({key: value for key, value in params.items() if value is not None})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics, those of an epoch with `step` = the epoch; what is undefined (NaN) is left out."""
        mlflow.log_metrics({name: value for name, value in metrics.items() if value == value}, step=step)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags."""
        mlflow.set_tags(dict(tags))

    def describe(self, markdown: str) -> None:
        """Set the description that the UI shows above the run."""
        mlflow.set_tag(DESCRIPTION, markdown)

    def log_text(self, text: str, path: str) -> None:
        """Keep a text as an artifact."""
        mlflow.log_text(text, path)

    def log_json(self, content: Mapping[str, Any], path: str) -> None:
        """Keep a JSON object as an artifact."""
        mlflow.log_dict(dict(content), path)

    def log_folder(self, folder: Path, path: str) -> None:
        """Keep the files of a folder as artifacts below `path`."""
        mlflow.log_artifacts(str(folder), path)

    def log_figure(self, figure: Figure, path: str) -> None:
        """Keep a figure as an artifact, PNG by the suffix of `path`."""
        mlflow.log_figure(figure, path)

    def log_splits(self, splits: Splits) -> None:
        """Name the data as inputs of the run, one a split; all have the data's fingerprint in their source."""
        source = CodeDatasetSource(tags={"origin": splits.origin, "fingerprint": splits.fingerprint})
        for name, split in splits.items():
            # Object columns: MLflow's schema inference does not know pandas' own string type.
            labels = [splits.label_names[label_id] for label_id in split.label_ids]
            frame = pd.DataFrame({"text": list(split.texts), "label": labels}, dtype=object)
            # A digest for each split: MLflow takes inputs of one name and digest for the same thing.
            digest = hashlib.sha256(f"{splits.fingerprint} {name}".encode()).hexdigest()[:36]
            dataset = mlflow.data.from_pandas(frame, source, targets="label", name=splits.name, digest=digest)
            mlflow.log_input(dataset, context=name)

    def log_saved_model(self, saved_model: Path, registered_name: str, example: str, tags: Mapping[str, str]) -> str:
        """Log a SavedModel as an MLflow model (pyfunc) with an example text, register it, return its version."""
        # MLflow warns of its own type hints and of its own use of pandas here; there is nothing a user could do.
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stderr(io.StringIO()),  # where it announces the version that is returned here
        ):
            logged = mlflow.pyfunc.log_model(
                name="model",
                loader_module="app.serving.pyfunc",
                data_path=str(saved_model),
                model_config={OUTPUT: OUTPUTS[0]},  # only what stands here can be set otherwise when it is loaded
                code_paths=[str(copy_serving_code(Path(folder)))],
                pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVING_REQUIREMENTS],
                signature=text_signature(),
                input_example=pd.DataFrame({"text": [example]}, dtype=object),
                registered_model_name=registered_name,
            )
        version = str(logged.registered_model_version)
        client = mlflow.MlflowClient()
        for key, value in tags.items():
            client.set_model_version_tag(registered_name, version, key, value)
        return version


def tracking_uri(artifacts: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite store below `artifacts`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(artifacts / 'mlflow.db').resolve()}"


def text_signature() -> ModelSignature:
    """Text in; label, confidence and probabilities (in the order of the label names) out."""
    outputs = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "confidence"),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
    return ModelSignature(Schema([ColSpec(DataType.string, "text")]), Schema(outputs))


def copy_serving_code(folder: Path) -> Path:
    """Copy what a logged model needs of this package, no training and no server; return the package's folder."""
    package = Path(app.__file__).parent
    copy = folder / "app"
    left_out = shutil.ignore_patterns("__pycache__", "http", "grpc_*")
    shutil.copytree(package / "serving", copy / "serving", ignore=left_out)
    for name in ("__init__.py", "errors.py"):
        shutil.copy2(package / name, copy / name)
    return copy


def stack_versions() -> dict[str, str]:
    """Versions of what a run's result depends on, as tags."""
    versions = {f"version.{name}": importlib.metadata.version(name) for name in STACK}
    return {**versions, "version.valence": app.__version__, "version.python": platform.python_version()}


@contextlib.contextmanager
def _mlflow_errors() -> Iterator[None]:
    """Turn MLflow's errors into ours, so that who calls needs to know nothing of MLflow."""
    try:
        yield
    except MlflowException as error:
        raise TrackingError(f"MLflow: {_first_line(error)}") from error


def _registered(version: Any) -> RegisteredVersion:
    return RegisteredVersion(version.name, str(version.version), str(version.run_id), dict(version.tags))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
