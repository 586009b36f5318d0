"""Which models are served, from where, and which of their versions: TensorFlow Serving's `--model_config_file`.

Source of the fields: TensorFlow Serving's model_server_config.proto and file_system_storage_path_source.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from app.errors import RequestError

PLATFORM = "tensorflow"


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions on disk are wanted: the `latest` highest, all, or those listed in `versions`."""

    kind: Literal["latest", "all", "specific"] = "latest"
    latest: int = 1
    versions: tuple[int, ...] = ()

    def choose(self, present: Iterable[int]) -> list[int]:
        """Those of the versions that are wanted, highest first."""
        highest_first = sorted(present, reverse=True)
        if self.kind == "specific":
            return [version for version in highest_first if version in self.versions]
        return highest_first[: self.latest] if self.kind == "latest" else highest_first


@dataclass(frozen=True)
class ModelSettings:
    """One model: its name in requests, the folder of its versions, which of them are wanted, and its labels.

    `labels` maps a name that a request may give instead of a version (`stable`, `canary`) to that version.
    """

    name: str
    base_path: Path
    version_policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)


def read_model_config(path: Path) -> list[ModelSettings]:
    """Read the models of a `ModelServerConfig` in protobuf's text form.

    A relative `base_path` is looked for beside the file, so that a folder of models can be moved with its
    configuration; TensorFlow Serving itself takes absolute ones alone. Raises `RequestError` naming the file,
    the line or the model, and what is allowed.
    """
    config = _parse(path)
    if config.WhichOneof("config") == "custom_model_config":
        raise RequestError(f"{path}: custom_model_config is not supported; allowed is model_config_list")
    models = [_settings(path, number, model) for number, model in enumerate(config.model_config_list.config, start=1)]
    if not models:
        raise RequestError(f"{path} names no model; expected model_config_list {{ config {{ name: ... }} }}")
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{path}: several models are named {', '.join(map(repr, twice))}; a name stands for one")
    return models


def _parse(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path}: {error}") from error
    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise RequestError(f"{path}, line {error}: not a ModelServerConfig in protobuf's text form") from error


def _settings(path: Path, number: int, model: Any) -> ModelSettings:
    where = f"{path}, model {model.name!r}" if model.name else f"{path}, model {number} of the list"
    if not model.name or set(model.name) & set("/:"):
        raise RequestError(f"{where}: name is {model.name!r}; allowed is any text without '/' and ':'")
    if not model.base_path or "://" in model.base_path:
        raise RequestError(f"{where}: base_path is {model.base_path!r}; allowed is a folder of this machine")
    _refuse_unsupported(where, model)
    labels = dict(model.version_labels)
    _refuse_negative(where, "version_labels", labels.values())
    # An absolute base_path replaces the folder of the file: that is how `/` joins paths. Links are not followed:
    # Kubernetes mounts a ConfigMap's file as a link into a folder of another name.
    base_path = path.absolute().parent / model.base_path
    return ModelSettings(model.name, base_path, _policy(where, model.model_version_policy), labels)


def _refuse_unsupported(where: str, model: Any) -> None:
    if model.model_platform not in ("", PLATFORM):
        raise RequestError(f"{where}: model_platform is {model.model_platform!r}; allowed is {PLATFORM!r}")
    if model.model_type == model_server_config_pb2.OTHER:
        raise RequestError(f"{where}: model_type is OTHER; allowed is TENSORFLOW, or model_platform: {PLATFORM!r}")
    if model.HasField("logging_config"):
        raise RequestError(f"{where}: logging_config is not supported: what clients send is not written to disk")


def _policy(where: str, policy: Any) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy("all")
        case "specific":
            if not policy.specific.versions:
                raise RequestError(f"{where}: the specific version policy lists no versions; it needs one at least")
            _refuse_negative(where, "versions", policy.specific.versions)
            return VersionPolicy("specific", versions=tuple(policy.specific.versions))
        case _:
            # TensorFlow Serving too takes a left out or zero num_versions as 1.
            return VersionPolicy("latest", max(policy.latest.num_versions, 1))


def _refuse_negative(where: str, field_name: str, versions: Iterable[int]) -> None:
    negative = [version for version in versions if version < 0]
    if negative:
        raise RequestError(f"{where}: {field_name} has {negative[0]}; versions are whole numbers from 0")
