"""A comparison with everything that was found beside its verdict: what the terminal, the report and JSON tell of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from app import wording
from app.analysis.costs import CostPanel
from app.analysis.disagreements import Disagreements, disagreements
from app.analysis.label_errors import Suspects, average_probabilities, out_of_sample_probabilities, suspects
from app.analysis.leaks import Leaks, find_leaks
from app.analysis.learning_curve import LearningCurve
from app.analysis.selective import Calibration, RiskCoverage, calibration, risk_coverage
from app.analysis.slices import Slice, find_slices
from app.analysis.tails import TailSignal, Truncation
from app.analysis.truncation import Ledger, truncation_ledger
from app.answers import Answers
from app.comparison import Comparison, Contender, compare
from app.errors import RequestError
from app.fairness import UNKNOWN
from app.luck import Luck, lucky_seeds
from app.metrics import evaluate_seeds
from app.serving.calibration import CALIBRATION_FILE
from app.serving.golden import EXTRA_FOLDER

FILE_OF_TEMPERATURE = f"{EXTRA_FOLDER}/{CALIBRATION_FILE}"
# Rows of a list that JSON keeps; CSV files keep all of them.
JSON_ROWS = 500


@dataclass(frozen=True, eq=False)
class Contestant:
    """One model that is compared: its test answers by seed, and what is known of how it was trained.

    exported: the place of the seed whose weights are kept, which stands for the model wherever single texts are shown.
    seed_names go with seeds. Seconds and milliseconds are means over seeds, NaN where nobody measured them; CPU
    seconds and parameters None. truncation: how the pipeline cuts. run_ids: MLflow runs, the model's own first.
    knows_temperature: False for a SavedModel that does not tell it, so that answers before it are not known.
    """

    name: str
    seeds: tuple[Answers, ...]
    seed_names: tuple[str, ...] = ("",)
    exported: int = 0
    training_seconds: float = math.nan
    training_cpu_seconds: float | None = None
    milliseconds_per_text: float = math.nan
    parameters: int | None = None
    truncation: Truncation = "head"
    origin: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    knows_temperature: bool = True

    @property
    def answers(self) -> Answers:
        """The answers that stand for the model: those of the exported seed."""
        return replace(self.seeds[self.exported], name=self.name)

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of each seed."""
        return [float(one.correct.mean()) for one in self.seeds]

    def contender(self) -> Contender:
        """What `app.comparison.compare` needs of it."""
        label_ids, label_names = self.seeds[0].label_ids, self.seeds[0].label_names
        probabilities = np.stack([one.probabilities for one in self.seeds])
        return Contender(
            name=self.name,
            label_ids=label_ids,
            probabilities=probabilities,
            evaluation=evaluate_seeds(label_ids, probabilities, label_names),
            training_seconds=self.training_seconds,
            milliseconds_per_text=self.milliseconds_per_text,
        )


@dataclass(frozen=True, eq=False)
class SplitTexts:
    """The texts of every split, train first, test last, with the labels int[n] and groups of the training rows."""

    texts: Mapping[str, tuple[str, ...]]
    train_label_ids: npt.NDArray[np.integer[Any]]
    train_groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LockLine:
    """One thing that has to be the same for a fair comparison, with its value for each model in their order."""

    what: str
    values: tuple[str, ...]

    @property
    def is_known(self) -> bool:
        """Whether it was logged for all."""
        return UNKNOWN not in self.values

    @property
    def is_same(self) -> bool:
        """Whether it is known to be the same for all."""
        return self.is_known and len(set(self.values)) == 1


@dataclass(frozen=True, eq=False)
class Setting:
    """What a comparison is of and under which conditions it was made.

    name: of the data. made: date and time as text, given by who asks. margin: as in `app.comparison.compare`. unfair:
    what makes the comparison no fair one, empty where nothing does. starts: what training started from, where not all
    models started from random weights. versions: of the software that made it.
    """

    name: str
    made: str
    noun: str = "examples"
    margin: float | None = None
    unfair: str = ""
    lock: tuple[LockLine, ...] = ()
    starts: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found beside the verdict; None, or empty, is what could not be looked for (`Compared.missing`).

    By model: luck, calibrations, risks, ledgers, curves. suspects: by split.
    """

    luck: Mapping[str, Luck]
    slices: tuple[Slice, ...]
    calibrations: Mapping[str, Calibration]
    risks: Mapping[str, RiskCoverage]
    ledgers: Mapping[str, Ledger]
    suspects: Mapping[str, Suspects]
    disagreements: Disagreements | None = None
    leaks: Leaks | None = None
    costs: CostPanel | None = None
    curves: Mapping[str, LearningCurve] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Compared:
    """Models, the verdict on them, and the findings. missing: name of a finding -> why it is not there."""

    setting: Setting
    contestants: tuple[Contestant, ...]
    comparison: Comparison
    findings: Findings
    missing: Mapping[str, str]

    @property
    def answers(self) -> list[Answers]:
        """The answers that stand for each model, in the order of the contestants."""
        return [one.answers for one in self.contestants]

    @property
    def num_examples(self) -> int:
        """Test examples."""
        return len(self.contestants[0].seeds[0])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The models, best accuracy first."""
        return tuple(row.name for row in self.comparison.rows)

    @property
    def several_seeds(self) -> bool:
        """Whether some model was trained more than once."""
        return any(len(one.seeds) > 1 for one in self.contestants)

    @property
    def unfair_label(self) -> str:
        """What makes the comparison unfair as a sentence, empty where nothing does."""
        unfair = self.setting.unfair
        return f"{unfair[0].upper()}{unfair[1:]}." if unfair else ""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict, led by what makes it unfair, if anything does."""
        return (*((self.unfair_label,) if self.unfair_label else ()), *self.comparison.sentences)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; long lists are cut to their first `JSON_ROWS` rows, what is undefined or infinite is None."""
        content = {
            "data": self.setting.name,
            "made": self.setting.made,
            "unfair": self.setting.unfair or None,
            "margin": self.setting.margin,
            "test_examples": self.num_examples,
            **self.comparison.to_dict(),
            "sentences": list(self.sentences),
            "models": [_model_dict(one) for one in self.contestants],
            "lock": [
                {"what": line.what, "same": line.is_same if line.is_known else None, "values": list(line.values)}
                for line in self.setting.lock
            ],
            "findings": _findings_dict(self.findings),
            "missing": dict(self.missing),
            "versions": dict(self.setting.versions),
        }
        return {name: _finite(value) for name, value in content.items()}


def look_into(
    contestants: Sequence[Contestant],
    setting: Setting,
    *,
    splits: SplitTexts | None = None,
    costs: CostPanel | None = None,
    curves: Mapping[str, LearningCurve] | None = None,
    missing: Mapping[str, str] | None = None,
    with_leaks: bool = True,
) -> Compared:
    """Compare the models and look for everything that their answers, and the texts of all splits, can show.

    `missing` says why what is not given is not there. RequestError where the models did not answer the same texts.
    """
    if not contestants:
        raise RequestError("nothing to compare: no model was given")
    comparison = compare([one.contender() for one in contestants], noun=setting.noun, margin=setting.margin)
    answers = [one.answers for one in contestants]
    found_suspects, why = _suspects(answers, splits)
    several = [one for one in contestants if len(one.seeds) > 1]
    findings = Findings(
        luck={one.name: lucky_seeds(one.accuracies, one.seed_names) for one in several},
        slices=find_slices(answers),
        calibrations={
            one.name: calibration(one.answers, knows_temperature=one.knows_temperature) for one in contestants
        },
        risks={one.name: risk_coverage(one) for one in answers},
        ledgers=_ledgers(contestants, splits),
        suspects=found_suspects,
        disagreements=disagreements(answers) if len(answers) > 1 else None,
        leaks=find_leaks(splits.texts, answers) if with_leaks and splits is not None else None,
        costs=costs,
        curves=curves or {},
    )
    why |= _without_temperature(contestants)
    return Compared(setting, tuple(contestants), comparison, findings, {**(missing or {}), **why})


def _without_temperature(contestants: Sequence[Contestant]) -> dict[str, str]:
    """Why calibration before the temperature is not there, if it is not."""
    names = [one.name for one in contestants if not one.knows_temperature]
    if not names:
        return {}
    tells = "does not tell its temperature" if len(names) == 1 else "do not tell their temperatures"
    return {"calibration before the temperature": f"{wording.listing(names)} {tells} (no {FILE_OF_TEMPERATURE})"}


def _suspects(answers: Sequence[Answers], splits: SplitTexts | None) -> tuple[dict[str, Suspects], dict[str, str]]:
    """Probably wrong labels by split, and why training rows could not be looked at, if they could not."""
    first = answers[0]
    found = {"test": suspects(first.texts, first.label_ids, average_probabilities(answers), first.label_names)}
    if splits is None:
        return found, {}
    texts, label_ids = splits.texts["train"], splits.train_label_ids
    try:
        probabilities = out_of_sample_probabilities(
            texts, label_ids, len(first.label_names), groups=splits.train_groups
        )
    except RequestError as error:
        return found, {"label errors in training": str(error)}
    return {**found, "train": suspects(texts, label_ids, probabilities, first.label_names)}, {}


def _ledgers(contestants: Sequence[Contestant], splits: SplitTexts | None) -> dict[str, Ledger]:
    """What truncation does to each model. What the lost parts tell is asked once for models that cut alike."""
    found: dict[str, Ledger] = {}
    asked: dict[tuple[int, str], TailSignal | None] = {}
    for one in contestants:
        answers = one.answers
        cut = (answers.sequence_length, one.truncation)
        if splits is None or cut in asked:
            ledger = replace(truncation_ledger(answers, truncation=one.truncation), tail=asked.get(cut))
        else:
            ledger = truncation_ledger(
                answers,
                truncation=one.truncation,
                train_texts=splits.texts["train"],
                train_label_ids=splits.train_label_ids,
            )
            asked[cut] = ledger.tail
        found[one.name] = ledger
    return found


def _model_dict(one: Contestant) -> dict[str, Any]:
    return {
        "name": one.name,
        "origin": one.origin,
        "runs": list(one.run_ids),
        "seeds": [
            {"name": name, "accuracy": accuracy} for name, accuracy in zip(one.seed_names, one.accuracies, strict=True)
        ],
        "exported_seed": one.seed_names[one.exported],
        "training_seconds": one.training_seconds,
        "milliseconds_per_text": one.milliseconds_per_text,
        "training_cpu_seconds": one.training_cpu_seconds,
        "parameters": one.parameters,
        "facts": dict(one.facts),
    }


def _finite(value: Any) -> Any:
    """The value with None for every float within it that JSON does not have: a time that nobody measured."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _findings_dict(found: Findings) -> dict[str, Any]:
    def by_name(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value.to_dict() for name, value in values.items()}

    return {
        "luck": {name: {"lucky": list(luck.lucky), "sentence": luck.sentence} for name, luck in found.luck.items()},
        "disagreements": found.disagreements.to_dict(JSON_ROWS) if found.disagreements else None,
        "slices": [one.to_dict() for one in found.slices],
        "calibration": by_name(found.calibrations),
        "risk_coverage": by_name(found.risks),
        "truncation": by_name(found.ledgers),
        "leaks": found.leaks.to_dict(JSON_ROWS) if found.leaks else None,
        "label_suspects": {split: one.to_dict(JSON_ROWS) for split, one in found.suspects.items()},
        "costs": found.costs.to_dict() if found.costs else None,
        "learning_curves": by_name(found.curves),
    }
