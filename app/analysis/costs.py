"""What models cost and what the dearer one gives for it: size, time, CPU, joules, and the price of an avoided error."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app import wording
from app.analysis.energy import EnergyMeter
from app.answers import Answers
from app.errors import RequestError
from app.statistics import Interval, paired_bootstrap, weighted_mean

WARM_UP_TEXTS = 10
PER = 1_000  # texts that errors, CPU seconds and joules are given for


class Classifier(Protocol):
    """What is measured: `app.serving.predictor.Predictor`, or whatever answers like it."""

    def predict(self, texts: Sequence[str], batch_size: int | None = None) -> Any:
        """Classify the texts."""


@dataclass(frozen=True)
class Speed:
    """How fast a classifier answers in this process, once it is warm.

    Milliseconds are the wall time of one text alone, median and 95th percentile. The rest is in batches:
    texts a second of wall time, CPU seconds of all threads and joules of the whole machine for 1,000 texts.
    """

    p50_milliseconds: float
    p95_milliseconds: float
    texts_per_second: float
    cpu_seconds: float
    joules: float | None


@dataclass(frozen=True)
class ModelCost:
    """What one trained model cost and costs; `training_cpu_seconds` and `parameters` None where nobody knows."""

    name: str
    training_cpu_seconds: float | None
    parameters: int | None
    export_bytes: int
    speed: Speed


@dataclass(frozen=True)
class BreakEven:
    """What the dearer of two models gives for what it costs.

    errors_avoided: errors on 1,000 texts that the cheaper model makes and the dearer one does not, less the
    reverse, with its paired 95% interval. extra_milliseconds: median wait of one text alone. extra_cpu_seconds:
    for 1,000 texts in batches. Prices are in the user's currency; None where none was named.
    """

    dearer: str
    cheaper: str
    errors_avoided: Interval
    extra_milliseconds: float
    extra_cpu_seconds: float
    extra_training_cpu_seconds: float | None
    price_per_cpu_hour: float | None = None
    price_per_error: float | None = None

    def each_error_costs(self, extra: float) -> Interval:
        """`extra` for 1,000 texts, for each error avoided; infinite where it may be that none is avoided."""
        avoided = self.errors_avoided
        low, high = sorted((_over(extra, avoided.low), _over(extra, avoided.high)))
        return Interval(_over(extra, avoided.value), low, high)

    @property
    def gain(self) -> Interval | None:
        """What 1,000 texts bring: errors avoided at their price, less the CPU's. None without both prices."""
        if self.price_per_cpu_hour is None or self.price_per_error is None:
            return None
        cost = self.extra_cpu_seconds / 3600 * self.price_per_cpu_hour
        avoided, price = self.errors_avoided, self.price_per_error
        return Interval(avoided.value * price - cost, avoided.low * price - cost, avoided.high * price - cost)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a careful colleague would say of it."""
        said = [_what_it_avoids(self), _what_it_costs(self)]
        return tuple(sentence for sentence in (*said, _what_it_pays(self)) if sentence)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        wait = self.each_error_costs(self.extra_milliseconds * PER)
        return {
            **dataclasses.asdict(self),
            "errors_avoided": self.errors_avoided.to_dict(),
            "milliseconds_per_avoided_error": wait.to_dict(),
            "cpu_seconds_per_avoided_error": self.each_error_costs(self.extra_cpu_seconds).to_dict(),
            "gain": self.gain.to_dict() if self.gain else None,
            "sentences": list(self.sentences),
        }


@dataclass(frozen=True)
class CostPanel:
    """The costs of several models, measured in one run on `machine`, and every dearer model against the cheapest.

    `energy_note` says why there are no joules, None where there are.
    """

    models: tuple[ModelCost, ...]
    break_evens: tuple[BreakEven, ...]
    machine: str
    energy_note: str | None

    def table(self) -> list[dict[str, str]]:
        """The models as text by column heading, the same headings in each."""
        return [_row(model, with_joules=self.energy_note is None) for model in self.models]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every break-even in words, then where it was measured and what could not be."""
        said = [sentence for one in self.break_evens for sentence in one.sentences]
        missing = [f"No joules: {self.energy_note}."] if self.energy_note else []
        return (*said, f"Measured on {self.machine}, the models taking turns.", *missing)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "models": [dataclasses.asdict(model) for model in self.models],
            "break_evens": [one.to_dict() for one in self.break_evens],
            "machine": self.machine,
            "energy_note": self.energy_note,
            "sentences": list(self.sentences),
        }


def measure_speeds(
    classifiers: Mapping[str, Classifier],
    texts: Sequence[str],
    *,
    batch_size: int = 32,
    rounds: int = 5,
    meter: EnergyMeter | None = None,
) -> dict[str, Speed]:
    """Time every classifier on the same texts, taking turns: what else the machine does then slows all of them alike.

    Each text alone, then all texts in batches, `rounds` times; who goes first changes each time. RequestError
    for no text.
    """
    if not texts:
        raise RequestError("no text to measure with: at least 1 is needed")
    for classifier in classifiers.values():
        for number in range(WARM_UP_TEXTS):
            classifier.predict([texts[number % len(texts)]])
        classifier.predict(texts, batch_size)
    alone: dict[str, list[float]] = {name: [] for name in classifiers}
    for turn, text in enumerate(texts):
        for name in _in_turns(classifiers, turn):
            started = time.perf_counter()
            classifiers[name].predict([text])
            alone[name].append(1_000 * (time.perf_counter() - started))
    batches: dict[str, list[_Batch]] = {name: [] for name in classifiers}
    for turn in range(rounds):
        for name in _in_turns(classifiers, turn):
            batches[name].append(_time_batches(classifiers[name], texts, batch_size, meter or EnergyMeter()))
    return {name: _speed(alone[name], batches[name], len(texts)) for name in classifiers}


def cost_panel(
    costs: Sequence[ModelCost],
    answers: Mapping[str, Answers],
    *,
    price_per_cpu_hour: float | None = None,
    price_per_error: float | None = None,
    meter: EnergyMeter | None = None,
) -> CostPanel:
    """Set what each model costs against what it gets right: cheapest first, by CPU seconds in batches.

    `answers` are those on one split by the names in `costs`. RequestError for a negative price.
    """
    for name, price in (("price_per_cpu_hour", price_per_cpu_hour), ("price_per_error", price_per_error)):
        if price is not None and not 0 <= price < math.inf:
            raise RequestError(f"{name} = {price}: a price is a number from 0")
    ranked = tuple(sorted(costs, key=lambda cost: cost.speed.cpu_seconds))
    return CostPanel(
        models=ranked,
        break_evens=tuple(
            BreakEven(
                dearer=cost.name,
                cheaper=ranked[0].name,
                errors_avoided=errors_avoided(answers[cost.name], answers[ranked[0].name]),
                extra_milliseconds=cost.speed.p50_milliseconds - ranked[0].speed.p50_milliseconds,
                extra_cpu_seconds=cost.speed.cpu_seconds - ranked[0].speed.cpu_seconds,
                extra_training_cpu_seconds=_less(cost.training_cpu_seconds, ranked[0].training_cpu_seconds),
                price_per_cpu_hour=price_per_cpu_hour,
                price_per_error=price_per_error,
            )
            for cost in ranked[1:]
        ),
        machine=describe_machine(),
        energy_note=(meter or EnergyMeter()).why_not,
    )


def errors_avoided(dearer: Answers, cheaper: Answers, *, seed: int = 0) -> Interval:
    """Errors on 1,000 texts that `dearer` avoids, with the paired 95% interval of the difference in accuracy."""
    if not np.array_equal(dearer.label_ids, cheaper.label_ids):
        raise RequestError(f"{dearer.name} and {cheaper.name} did not answer the same texts: their label_ids differ")
    means = weighted_mean(dearer.correct), weighted_mean(cheaper.correct)
    difference = paired_bootstrap(*means, len(dearer), seed=seed)
    return Interval(PER * difference.value, PER * difference.low, PER * difference.high)


def export_bytes(version_folder: Path) -> int:
    """Bytes of all files of an export."""
    return sum(file.stat().st_size for file in version_folder.rglob("*") if file.is_file())


def describe_machine() -> str:
    """Processor architecture, cores that this process may use, and the system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} CPU cores ({platform.machine()}, {platform.system()})"


@dataclass(frozen=True)
class _Batch:
    """All texts once, in batches: wall and CPU seconds, and joules."""

    seconds: float
    cpu_seconds: float
    joules: float | None


def _time_batches(classifier: Classifier, texts: Sequence[str], batch_size: int, meter: EnergyMeter) -> _Batch:
    joules, cpu, started = meter.read(), time.process_time(), time.perf_counter()
    classifier.predict(texts, batch_size)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return _Batch(seconds, cpu_seconds, meter.joules(joules, meter.read()))


def _speed(alone: Sequence[float], batches: Sequence[_Batch], count: int) -> Speed:
    p50, p95 = np.percentile(alone, [50, 95])
    joules = [batch.joules for batch in batches if batch.joules is not None]
    return Speed(
        p50_milliseconds=float(p50),
        p95_milliseconds=float(p95),
        texts_per_second=count / float(np.median([batch.seconds for batch in batches])),
        cpu_seconds=PER / count * float(np.median([batch.cpu_seconds for batch in batches])),
        joules=PER / count * float(np.median(joules)) if joules else None,
    )


def _in_turns(names: Mapping[str, Any], turn: int) -> Iterator[str]:
    """The names, each time starting with the next: none always runs on what another left in the caches."""
    ordered = list(names)
    yield from (ordered[(turn + place) % len(ordered)] for place in range(len(ordered)))


def _over(extra: float, errors: float) -> float:
    return extra / errors if errors > 0 else math.copysign(math.inf, extra)


def _less(more: float | None, less: float | None) -> float | None:
    return None if more is None or less is None else more - less


def _what_it_avoids(one: BreakEven) -> str:
    avoided = one.errors_avoided
    if avoided.low > 0:
        found = f"{avoided.value:.1f} [{avoided.low:.1f}, {avoided.high:.1f}]"
        return f"{one.dearer} avoids {found} errors in {PER:,} texts that {one.cheaper} makes."
    found = f"{avoided.value:+.1f} [{avoided.low:+.1f}, {avoided.high:+.1f}] in {PER:,} texts"
    if avoided.high < 0:
        return f"{one.dearer} costs more than {one.cheaper} and makes more errors: {found} avoided."
    return f"{one.dearer} is not shown to avoid errors that {one.cheaper} makes: {found}."


def _what_it_costs(one: BreakEven) -> str:
    extra = f"{one.extra_milliseconds:+.1f} ms a text alone, {one.extra_cpu_seconds:+.2f} CPU seconds for {PER:,} texts"
    if one.errors_avoided.low <= 0:
        return f"It takes {extra} in batches."
    wait, cpu = one.each_error_costs(one.extra_milliseconds * PER), one.each_error_costs(one.extra_cpu_seconds)
    return (
        f"It takes {extra} in batches: each avoided error costs {wait.value:,.0f} ms of waiting "
        f"[{wait.low:,.0f}, {wait.high:,.0f}] or {cpu.value:.3f} CPU seconds [{cpu.low:.3f}, {cpu.high:.3f}]."
    )


def _what_it_pays(one: BreakEven) -> str | None:
    """The break-even, as far as prices were named and errors are avoided at all."""
    if one.price_per_cpu_hour is None or one.errors_avoided.value <= 0:
        return None
    hour = one.price_per_cpu_hour
    if one.gain is None:
        price = one.each_error_costs(one.extra_cpu_seconds / 3600 * hour)
        return f"At {hour:g} a CPU hour it pays where an error costs more than {price.value:.3g}, training not counted."
    said = f"At {hour:g} a CPU hour and {one.price_per_error:g} an error it"
    found = f"{one.gain.value:+.3g} [{one.gain.low:+.3g}, {one.gain.high:+.3g}] for {PER:,} texts"
    if one.gain.low <= 0:
        return f"{said} {'does not pay' if one.gain.high <= 0 else 'is not shown to pay'}: {found}."
    training = one.extra_training_cpu_seconds
    if training is None or training <= 0:
        return f"{said} pays: {found}."
    texts = math.ceil(PER * training / 3600 * hour / one.gain.value)
    return f"{said} pays: {found}; its training is earned back after about {wording.about(texts)} texts."


def _row(model: ModelCost, *, with_joules: bool) -> dict[str, str]:
    speed, training = model.speed, model.training_cpu_seconds
    row = {
        "model": model.name,
        "training CPU": "unknown" if training is None else wording.duration(training),
        "on disk": f"{model.export_bytes / 1e6:.1f} MB",
        "parameters": "unknown" if model.parameters is None else f"{model.parameters:,}",
        "one text, p50": wording.milliseconds(speed.p50_milliseconds),
        "p95": wording.milliseconds(speed.p95_milliseconds),
        "texts/s in batches": f"{speed.texts_per_second:,.0f}",
        f"CPU s / {PER:,}": f"{speed.cpu_seconds:.2f}",
    }
    if with_joules:
        row[f"joules / {PER:,}"] = "unknown" if speed.joules is None else f"{speed.joules:.1f}"
    return row
