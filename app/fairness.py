"""What must be equal before two runs' figures may stand side by side, and how it is said when it is not."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import io
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import ModuleType

from app import calibration, metrics, seeds, statistics
from app.config import RunConfig
from app.wording import listing

TAG = "fingerprint."
METRIC_CODE: tuple[ModuleType, ...] = (metrics, statistics, seeds, calibration)
SHORT = 8  # characters of a hash that a person is shown
UNKNOWN = "not logged"

# What a reader is told that differs, by the field of `Lock`.
MEANINGS = {
    "data": "the rows",
    "split": "which row is in which split",
    "vocabulary": "the vocabulary",
    "pipeline": "the pipeline from text to batches",
    "metrics": "the code of the metrics",
    "tuning_budget": "the tuning budget",
    "class_weights": "the class weights",
}
START = "what training started from"
RANDOM = "random weights"


@dataclass(frozen=True)
class Lock:
    """What a run's figures depend on besides its model. Empty: a run of before this was logged.

    data: hash of the rows, whatever their split; split: hash of rows and membership; vocabulary, pipeline: their
    fingerprints; metrics: hash of the metric code; tuning_budget: minutes; class_weights: none or balanced. start: what
    training started from, in words, empty for random weights: it may differ, and is named where it does (`starts`).
    """

    data: str = ""
    split: str = ""
    vocabulary: str = ""
    pipeline: str = ""
    metrics: str = ""
    tuning_budget: str = ""
    class_weights: str = ""
    start: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the values by the names of the fields, as `answers.json` holds them."""
        return asdict(self)

    def to_tags(self) -> dict[str, str]:
        """Return the tags of an MLflow run: `fingerprint.data` and so on."""
        return {f"{TAG}{name}": value for name, value in self.to_dict().items()}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Lock:
        """Read a run's tags; what is not among them stays empty."""
        return cls(**{name: tags.get(f"{TAG}{name}", "") for name in (*MEANINGS, "start")})


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same for two runs, as a person is told: hashes are cut short."""

    what: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.what} ({self.first} against {self.second})"


def make_lock(fingerprints: Mapping[str, str], config: RunConfig) -> Lock:
    """Return a run's lock, from its material's fingerprints (data, split, vocabulary, pipeline) and settings."""
    return Lock(
        **fingerprints,
        metrics=metric_code_fingerprint(),
        tuning_budget=f"{config.tuning_budget_minutes:g}",
        class_weights=config.fit.class_weights,
        start=config.init.starts_from,
    )


@functools.cache
def metric_code_fingerprint() -> str:
    """Return the SHA-256 (hex) of the code that turns answers into figures, without comments and docstrings."""
    return code_fingerprint([inspect.getsource(module) for module in METRIC_CODE])


def code_fingerprint(sources: Sequence[str]) -> str:
    """Return the SHA-256 (hex) of Python sources, see `bare_code`."""
    return hashlib.sha256("\n".join(bare_code(source) for source in sources).encode()).hexdigest()


def bare_code(source: str) -> str:
    """Return Python source without comments, docstrings and blank lines, otherwise as it was written."""
    # Not `ast.unparse` or `ast.dump`: what they write differs between versions of Python.
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def differences(first: Lock, second: Lock) -> list[Difference]:
    """Return what differs between two runs, in the order of `Lock`; none: their figures may be compared.

    Other rows are split otherwise: where the rows differ, the split is not named too.
    """
    return [
        Difference(MEANINGS[name], _shown(name, getattr(first, name)), _shown(name, getattr(second, name)))
        for name in _unequal([first, second])
    ]


def refusal(names: Sequence[str], locks: Sequence[Lock]) -> str | None:
    """Return why these runs are not compared, and what to do; None where nothing stands against it.

    `names` and `locks` go together, one a run.
    """
    found = _by_value(names, locks)
    if not found:
        return None
    return (
        f"{listing(list(names))} were not trained and measured alike. They differ in:\n"
        + "\n".join(f"- {line}" for line in found)
        + "\nTrain them with one command, or compare them all the same with --anyway."
    )


def label(names: Sequence[str], locks: Sequence[Lock]) -> str | None:
    """Return the line that a comparison carries which was made all the same; None for a fair one."""
    found = _by_value(names, locks)
    return f"not a fair comparison: {'; '.join(found)}" if found else None


def starts(names: Sequence[str], locks: Sequence[Lock]) -> str | None:
    """Return what each run's training started from; None where all started from random weights."""
    if not any(lock.start for lock in locks):
        return None
    owners: dict[str, list[str]] = {}
    for name, lock in zip(names, locks, strict=True):
        owners.setdefault(lock.start or RANDOM, []).append(name)
    said = [f"{listing(who)} {'starts' if len(who) == 1 else 'start'} from {start}" for start, who in owners.items()]
    return "; ".join(said)


def unknown(names: Sequence[str], locks: Sequence[Lock]) -> str | None:
    """Return what is not known of which runs, so that nobody can say it is the same; None where all is known."""
    empty = [tuple(field for field in MEANINGS if not getattr(lock, field)) for lock in locks]
    if all(len(missing) == len(MEANINGS) for missing in empty):
        return "how these models were trained is not known"
    owners: dict[tuple[str, ...], list[str]] = {}
    for name, missing in zip(names, empty, strict=True):
        if missing:
            owners.setdefault(missing, []).append(name)
    return "; ".join(_not_known(missing, who) for missing, who in owners.items()) or None


def _not_known(empty: Sequence[str], names: Sequence[str]) -> str:
    if len(empty) == len(MEANINGS):
        return f"how {listing(list(names))} {'was' if len(names) == 1 else 'were'} trained is not known"
    return f"not logged for {listing(list(names))}: {', '.join(MEANINGS[field] for field in empty)}"


def _by_value(names: Sequence[str], locks: Sequence[Lock]) -> list[str]:
    """One line a difference, with the runs that share a value: "the rows: a and b 1f00c0de, c 2b2b2b2b"."""
    lines = []
    for field in _unequal(locks):
        owners: dict[str, list[str]] = {}
        for name, lock in zip(names, locks, strict=True):
            owners.setdefault(_shown(field, getattr(lock, field)), []).append(name)
        lines.append(f"{MEANINGS[field]}: {', '.join(f'{listing(who)} {value}' for value, who in owners.items())}")
    return lines


def _unequal(locks: Sequence[Lock]) -> list[str]:
    names = [name for name in MEANINGS if len({getattr(lock, name) for lock in locks}) > 1]
    # Other rows are split otherwise; what training starts from brings its own vocabulary.
    implied = {"split"} if "data" in names else set()
    if len({(lock.start, lock.vocabulary) for lock in locks}) == len({lock.start for lock in locks}):
        implied.add("vocabulary")
    return [name for name in names if name not in implied]


def _shown(name: str, value: str) -> str:
    if not value:
        return UNKNOWN
    if name == "tuning_budget":
        return f"{value} min"
    return value if name == "class_weights" else value[:SHORT]
