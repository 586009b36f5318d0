"""The models that are served: loads new versions beside old ones, hands them out by name, version or label."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from app.errors import RequestError
from app.serving.loading import failure, load_whole
from app.serving.model_config import ModelSettings, read_model_config
from app.serving.model_versions import HISTORY, ModelVersions, Version
from app.serving.status import Code, ServingError, invalid
from app.serving.versions import SAVED_MODEL_FILE, State, VersionStatus, version_folders

if TYPE_CHECKING:
    from app.serving.servable import Servable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSpec:
    """Which model a request is for: its name, and a version or a label, or neither for the latest version."""

    name: str
    version: int | None = None
    label: str | None = None


class ModelRepository:
    """Models by name, each with one or several versions loaded.

    A thread looks at the folders every `poll_seconds` (0: only at the start) and at `config_file` every
    `config_poll_seconds` (0: never). It alone loads and unloads, one version at a time, and holds no lock
    meanwhile: a version answers until the one that replaces it is loaded and warm. `load` makes a servable of a
    version folder; `warm_up` says whether it is warmed before it takes requests.

    As in TensorFlow Serving, a model whose base path is empty has its last version unloaded, while one whose
    base path is missing or cannot be read keeps its versions. Unlike there, a version that failed is tried again
    when its files change and not after a while, and at the start the next lower version takes its place.
    """

    def __init__(
        self,
        models: Sequence[ModelSettings],
        load: Callable[[Path], Servable],
        *,
        poll_seconds: float = 1.0,
        config_file: Path | None = None,
        config_poll_seconds: float = 0.0,
        warm_up: bool = True,
    ) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._load_servable = load
        self._warm_up = warm_up
        self._poll_seconds = poll_seconds
        self._config_file = config_file
        self._config_poll_seconds = config_poll_seconds if config_file is not None else 0.0
        self._configured = list(models)
        self._models = {settings.name: ModelVersions(settings, self._lock) for settings in models}
        # A model whose base path changed, until it has loaded a version from the new one.
        self._arriving: dict[str, ModelVersions] = {}
        self._removed: dict[str, ModelVersions] = {}
        self._draining: list[tuple[ModelVersions, Version]] = []
        self._complaints: dict[str, str] = {}

    def start(self) -> None:
        """Load what is wanted, then watch the folders and the config file in a thread.

        Raises `RequestError` when a model has no version that loads, with the reason of each.
        """
        for model in self._models.values():
            self._bring_up_to_date(model, settle_seconds=0)
        reasons = [_why_none_serves(model) for model in self._models.values() if model.latest is None]
        if reasons:
            self.close()
            raise RequestError("; ".join(reasons))
        if self._poll_seconds > 0 or self._config_poll_seconds > 0:
            self._thread = threading.Thread(target=self._watch, name="model-versions", daemon=True)
            self._thread.start()

    def lease(self, spec: ModelSpec) -> AbstractContextManager[Servable]:
        """The version that a request is for, which stays loaded within the `with` block.

        Entering it raises `ServingError` in TensorFlow Serving's words: NOT_FOUND, or INVALID_ARGUMENT for a
        label that no version has.
        """
        return _Lease(self, spec)

    def statuses(self, spec: ModelSpec) -> list[VersionStatus]:
        """What became of the model's versions, newest first; a label is ignored. Raises `ServingError` NOT_FOUND."""
        with self._lock:
            model = self._models.get(spec.name) or self._removed.get(spec.name)
        found = model.statuses() if model is not None else []
        if spec.version is not None:
            found = [status for status in found if status.version == spec.version]
        if found:
            return found
        missing = "any versions" if spec.version is None else f"version {spec.version}"
        raise ServingError(Code.NOT_FOUND, f"Could not find {missing} of model {spec.name}")

    def names(self) -> list[str]:
        """The models that are served now."""
        with self._lock:
            return list(self._models)

    def close(self) -> None:
        """Unload everything. A version that is still answering is left to the end of the process."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for model in (*self._models.values(), *self._arriving.values()):
            self._unload_all(model)
        self._close_drained()

    def acquire(self, spec: ModelSpec) -> Version:
        """Count one more request for a version; `release` ends it. `lease` does both."""
        with self._lock:
            version = self._find(spec)
            version.leases += 1
            return version

    def release(self, version: Version) -> None:
        """End what `acquire` began."""
        with self._lock:
            version.leases -= 1
            is_drained = version.leases == 0 and version.state is State.UNLOADING
        if is_drained:
            self._wake.set()  # closing takes a while: not at the cost of this request

    def _find(self, spec: ModelSpec) -> Version:
        model, number = self._models.get(spec.name), spec.version
        if spec.label is not None:
            number = model.labels.get(spec.label) if model is not None else None
            if number is None:
                raise invalid(f"Unrecognized servable version label: {spec.label}")
        if model is not None:
            version = model.latest if number is None else model.serving.get(number)
            if version is not None:
                return version
        wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")

    def _watch(self) -> None:
        """The thread: close what has drained as soon as it has, look at files when it is time."""
        folders_due, config_due = _due(self._poll_seconds), _due(self._config_poll_seconds)
        while not self._is_stopping:
            self._wake.wait(min(max(min(folders_due, config_due) - time.monotonic(), 0), threading.TIMEOUT_MAX))
            self._wake.clear()
            self._attempt(self._close_drained)
            if time.monotonic() >= config_due and not self._is_stopping:
                self._attempt(self._read_config_again)
                config_due = _due(self._config_poll_seconds)
            if time.monotonic() >= folders_due and not self._is_stopping:
                self._attempt(self._look_at_folders)
                folders_due = _due(self._poll_seconds)

    def _attempt(self, work: Callable[[], None]) -> None:
        """Whatever goes wrong, what is served stays served, and it is tried again next time."""
        try:
            work()
        except Exception:
            logger.exception("looking after the served models failed")

    def _look_at_folders(self) -> None:
        for model in (*self._models.values(), *self._arriving.values()):
            self._bring_up_to_date(model, settle_seconds=self._poll_seconds)
        for name in [name for name, model in self._arriving.items() if model.latest is not None]:
            self._take_over(self._arriving.pop(name))

    def _bring_up_to_date(self, model: ModelVersions, *, settle_seconds: float) -> None:
        """Load and unload until the model's versions are those that its policy wants of those on disk."""
        folders = self._folders(model.settings)
        if folders is None:
            return
        model.reconsider(folders, settle_seconds)
        while not self._is_stopping:
            model.observe(folders, settle_seconds)
            # Before the next step, which may unload the version that a label is about to leave.
            complaints = model.assign_labels()
            step = model.next_step(folders)
            if step is None:
                self._complain(f"labels of {model.settings.name} at {model.settings.base_path}", "; ".join(complaints))
                break
            if step.load:
                self._load(model, step.version)
            else:
                self._unload(model, step.version)
            self._close_drained()  # before the next load needs the memory

    def _folders(self, settings: ModelSettings) -> dict[int, Path] | None:
        """The version folders by number; None where the base path cannot be read, which must unload nothing."""
        subject = f"versions of {settings.name} at {settings.base_path}"
        try:
            if not settings.base_path.is_dir():
                raise FileNotFoundError("no such folder")
            folders = version_folders(settings.base_path)
        except OSError as error:
            self._complain(
                subject, f"Could not find base path {settings.base_path} for servable {settings.name}: {error}"
            )
            return None
        self._complain(subject, "" if settings.version_policy.choose(folders) else _nothing_wanted(settings))
        return folders

    def _load(self, model: ModelVersions, version: Version) -> None:
        name = f"{model.settings.name} version {version.number}"
        logger.info("loading %s from %s", name, version.folder)
        model.enter(version, State.LOADING)
        started = time.monotonic()
        try:
            version.servable = load_whole(version.folder, version.contents, self._load_servable, warm_up=self._warm_up)
        except Exception as error:  # a graph of strangers can fail in any way; the reason goes into the status
            code, message = failure(error, version.folder)
            model.enter(version, State.END, code, message)
            logger.error("%s is not served, and tried again when its files change: %s", name, message)
        else:
            model.enter(version, State.AVAILABLE)
            logger.info("%s is available after %.1f s", name, time.monotonic() - started)

    def _unload(self, model: ModelVersions, version: Version) -> None:
        """Give the version no new request; `_close_drained` frees it once it has answered those it has."""
        logger.info("unloading %s version %d", model.settings.name, version.number)
        model.enter(version, State.UNLOADING)
        self._draining.append((model, version))

    def _unload_all(self, model: ModelVersions) -> None:
        for version in list(model.serving.values()):
            self._unload(model, version)

    def _close_drained(self) -> None:
        with self._lock:
            drained = [(model, version) for model, version in self._draining if version.leases == 0]
        for model, version in drained:
            self._draining.remove((model, version))
            servable, version.servable = version.servable, None
            try:
                if servable is not None:
                    servable.close()
            finally:
                model.enter(version, State.END)

    def _read_config_again(self) -> None:
        """Take the config file's models if they are others than before; a file that is wrong changes nothing."""
        assert self._config_file is not None
        try:
            models = read_model_config(self._config_file)
        except RequestError as error:
            self._complain("config file", f"the models stay as they are: {error}")
            return
        self._complain("config file", "")
        if models != self._configured:
            self._configured = models
            self._apply(models)

    def _apply(self, models: Sequence[ModelSettings]) -> None:
        """Bring up what is new before what is gone is taken down."""
        logger.info("the model config file names %s", ", ".join(settings.name for settings in models))
        for settings in models:
            self._configure(settings)
        self._look_at_folders()
        for name in set(self._models) - {settings.name for settings in models}:
            self._remove(name)
        self._close_drained()

    def _configure(self, settings: ModelSettings) -> None:
        model = self._models.get(settings.name)
        if arriving := self._arriving.pop(settings.name, None):
            self._unload_all(arriving)
        if model is None:
            with self._lock:
                self._models[settings.name] = ModelVersions(settings, self._lock)
                self._removed.pop(settings.name, None)
        elif model.settings.base_path != settings.base_path:
            self._arriving[settings.name] = ModelVersions(settings, self._lock)
        else:
            model.settings = settings

    def _take_over(self, model: ModelVersions) -> None:
        with self._lock:
            former = self._models[model.settings.name]
            self._models[model.settings.name] = model
        self._unload_all(former)
        self._close_drained()

    def _remove(self, name: str) -> None:
        with self._lock:
            model = self._removed[name] = self._models.pop(name)
            for oldest in list(self._removed)[:-HISTORY]:
                del self._removed[oldest]
        if arriving := self._arriving.pop(name, None):
            self._unload_all(arriving)
        self._unload_all(model)

    def _complain(self, subject: str, message: str) -> None:
        """Log a complaint once, not at every look; an empty one means that all is well again."""
        if message and self._complaints.get(subject) != message:
            logger.warning("%s", message)
        if message:
            self._complaints[subject] = message
        else:
            self._complaints.pop(subject, None)


class _Lease:
    """A version in use. A class and not a generator: it is on the path of every request."""

    __slots__ = ("_repository", "_spec", "_version")

    def __init__(self, repository: ModelRepository, spec: ModelSpec) -> None:
        self._repository = repository
        self._spec = spec

    def __enter__(self) -> Servable:
        self._version = self._repository.acquire(self._spec)
        servable = self._version.servable
        assert servable is not None  # it has one from AVAILABLE until it has drained
        return servable

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._repository.release(self._version)


def _due(seconds: float) -> float:
    return time.monotonic() + seconds if seconds > 0 else float("inf")


def _nothing_wanted(settings: ModelSettings) -> str:
    versions = ", ".join(map(str, settings.version_policy.versions))
    asked = f" among those asked for ({versions})" if settings.version_policy.kind == "specific" else ""
    return (
        f"No versions of servable {settings.name} found under base path {settings.base_path}{asked}:"
        f" a version is a folder named by an integer, with a {SAVED_MODEL_FILE}"
    )


def _why_none_serves(model: ModelVersions) -> str:
    reasons = "; ".join(status.message for status in model.statuses() if status.message)
    return f"model {model.settings.name}: {reasons or _nothing_wanted(model.settings)}"
