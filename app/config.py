"""RunConfig: everything that decides a run, from defaults, a TOML file and `--set section.key=value`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, model_validator

from app.calibration import CalibrationConfig
from app.devices import Precision
from app.errors import RequestError
from app.initial_weights import InitConfig
from data.pipeline import PipelineConfig
from data.sources import DataConfig
from data.vocabulary import VocabularyConfig
from models import DEFAULT_MODELS, MODELS, ModelConfig


class FitConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How the weights are fitted; what is the architecture's own choice stands in the model's configuration."""

    warmup_fraction: float = Field(0.1, ge=0, le=1)
    """Share of all steps in which the learning rate rises to its peak; then it falls along a cosine."""
    clip_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    averaging: float = Field(0.1, ge=0, le=1)
    """Share of all steps that the running average of the weights reaches back over; 0: the last step's weights."""
    patience: int = Field(2, ge=1)
    """Epochs without a lower validation loss before training stops."""
    precision: Precision = "auto"
    """What layers compute in while training: `auto` is bfloat16 on GPUs that have cores for it, else float32."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weighs each class by the inverse of its share of the training rows."""


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """One run, resolved: what is saved with it and can be fed back with `--config`."""

    model_name: str
    seed: int = Field(0, ge=0, lt=2**31)
    seeds: int = Field(1, ge=1, le=100)
    """Times that the model is trained: with `seed`, `seed` + 1 and so on."""
    deterministic: bool = False
    """Bit-for-bit repeatable operations, slower."""
    tuning_budget_minutes: float = Field(0, ge=0, allow_inf_nan=False)
    """Minutes of search that led to this configuration, for a fair comparison with one that was not searched."""
    data: DataConfig = DataConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    pipeline: PipelineConfig = PipelineConfig()
    fit: FitConfig = FitConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    init: InitConfig = InitConfig()
    model: SerializeAsAny[ModelConfig]

    @model_validator(mode="after")
    def _leave_room_for_seeds(self) -> RunConfig:
        if self.seed + self.seeds > 2**31:
            raise ValueError(f"seed + seeds must be up to {2**31}")
        return self

    def by_seed(self) -> list[RunConfig]:
        """Return one configuration a seed; the only one is this."""
        return [self.model_copy(update={"seed": self.seed + more, "seeds": 1}) for more in range(self.seeds)]

    def to_toml(self) -> str:
        """Write the configuration as the TOML that `--config` reads."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def flat(self) -> dict[str, Any]:
        """Return `section.key` -> value, as MLflow parameters are named."""
        flat: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json").items():
            flat |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
        return flat


def resolve_configs(
    model_names: Sequence[str], file: Mapping[str, Any], overrides: Sequence[str], data: Mapping[str, Any]
) -> list[RunConfig]:
    """Return one configuration a model: those named, else the one of the file, else `DEFAULT_MODELS`.

    Raises:
        RequestError: as `resolve_config`; or a model named twice, or one that the file is not for.
    """
    of_file = file.get("model_name")
    if of_file is not None:
        _check_model(of_file)
    names = list(model_names) or ([of_file] if of_file else list(DEFAULT_MODELS))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{', '.join(twice)} is named more than once")
    if of_file and names != [of_file]:
        raise RequestError(f"the configuration is of {of_file}, not of {', '.join(names)}: name no model, or {of_file}")
    return [resolve_config(name, file, overrides, data) for name in names]


def resolve_config(
    model_name: str,
    file: Mapping[str, Any],
    overrides: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Put a run's configuration together: defaults, then `file`, then `data`, then `overrides`.

    Args:
        model_name: a key of MODELS.
        file: the content of a TOML file, as `read_toml` returns it.
        overrides: `section.key=value`, the value written as in TOML; a bare word is a string.
        data: settings of the `data` section that options of the command line name.

    Raises:
        RequestError: naming an unknown model, an unknown setting or a bad value, and what is allowed.
    """
    _check_model(model_name)
    settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in file.items()}
    if isinstance(settings.setdefault("data", {}), dict):  # else RunConfig refuses it below
        settings["data"] |= dict(data or {})
    for override in overrides:
        apply_setting(override, settings)
    if settings.setdefault("model_name", model_name) != model_name:
        raise RequestError(f"model_name = {settings['model_name']!r}: this run is of {model_name}. Name one of the two")
    try:
        model = MODELS[model_name].config.model_validate(settings.pop("model", {}))
    except ValidationError as error:
        raise RequestError(explain(error, MODELS[model_name].config, model_name, prefix="model.")) from None
    try:
        return RunConfig.model_validate({**settings, "model": model})
    except ValidationError as error:
        raise RequestError(explain(error, RunConfig, model_name)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file; RequestError where it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"no configuration file {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"{path}: not a TOML file ({error})") from None


def _check_model(name: Any) -> None:
    if name not in list(MODELS):  # a list: what a TOML file holds may have no hash
        raise RequestError(f"unknown model {name!r}. {_allowed(str(name), MODELS)}")


def apply_setting(override: str, settings: dict[str, Any]) -> None:
    """Put one `section.key=value` into `settings`; RequestError where it is not written so."""
    name, sign, text = override.partition("=")
    keys = name.strip().split(".")
    if not sign or len(keys) > 2 or not all(keys):
        raise RequestError(f"--set {override}: write section.key=value, for example --set model.learning_rate=0.001")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word, so that --set fit.class_weights=balanced needs no quotes in a shell
    section = settings if len(keys) == 1 else settings.setdefault(keys[0], {})
    if not isinstance(section, dict):
        raise RequestError(f"--set {override}: {keys[0]} is one value and has no {keys[1]}")
    section[keys[-1]] = value


def explain(error: ValidationError, config: type[BaseModel], model_name: str, prefix: str = "") -> str:
    """Say in one line per problem what was wrong and what is allowed."""
    return "\n".join(_explain_one(problem, config, model_name, prefix) for problem in error.errors())


def _explain_one(problem: Any, config: type[BaseModel], model_name: str, prefix: str) -> str:
    path = [str(part) for part in problem["loc"]]
    name = prefix + ".".join(path)
    if problem["type"] == "extra_forbidden":
        owner = f" for {model_name}" if prefix else ""
        return f"unknown setting {name}{owner}. {_allowed(path[-1], _fields(config, path[:-1]))}"
    # A whole section as the bad value says less than the message alone.
    value = "" if isinstance(problem["input"], Mapping) else f" = {problem['input']!r}"
    return f"{name.removesuffix('.') or 'configuration'}{value}: {problem['msg'].removeprefix('Value error, ')}"


def _fields(config: type[BaseModel], path: Sequence[str]) -> list[str]:
    for key in path:
        annotation = config.model_fields[key].annotation
        assert isinstance(annotation, type)
        config = annotation
    return sorted(config.model_fields)


def _allowed(given: str, known: Any) -> str:
    close = difflib.get_close_matches(given, list(known), n=1)
    return f"Known: {', '.join(known)}." + (f" Did you mean {close[0]}?" if close else "")
