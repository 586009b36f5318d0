"""Comparisons of made-up models, with texts and names that try to break out of the page."""

from __future__ import annotations

import numpy as np

from app.analysis.costs import ModelCost, Speed, cost_panel
from app.analysis.learning_curve import LearningCurve, trace
from app.answers import Answers
from app.compared import Compared, Contestant, LockLine, Setting, SplitTexts, look_into
from app.metrics import Examples

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> \"&amp;' {{ 7 * 7 }}"
FORMULA = '=HYPERLINK("//evil"), a formula\nover two lines'
LABEL_NAMES = ("<b>bad</b>", 'good & "fine"')
LONG = "a very long text " * 300
MODELS = ("linear", "lstm", "transformer")


def texts_of(count: int, seed: int) -> tuple[str, ...]:
    """Texts of made-up words, those at the start hostile."""
    chance = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(200)]
    made = [" ".join(chance.choice(words, 12)) for _ in range(count - 3)]
    return (f"{HOSTILE} {seed}", f"{FORMULA} {seed}", f"{LONG} {seed}", *made)


def made_answers(name: str, accuracy: float, texts: tuple[str, ...], label_ids: np.ndarray, seed: int) -> Answers:
    """A model with about this accuracy that is surer where it is right; of the first three texts it has all or none."""
    chance = np.random.default_rng(seed)
    right = chance.random(len(texts)) < accuracy
    right[:3] = seed // 10 % 2 == 0
    predicted = np.where(right, label_ids, 1 - label_ids)
    strength = chance.uniform(0.2, 2.5, len(texts)) + right
    logits = np.zeros((len(texts), 2))
    logits[np.arange(len(texts)), predicted] = strength
    num_tokens = np.array([len(text.split()) for text in texts])
    return Answers(name, LABEL_NAMES, texts, label_ids, logits, 1.3, num_tokens, num_tokens / 10_000, 64)


def made_compared(
    *, seeds: int = 1, tests: int = 300, unfair: str = "", curves: bool = True, copies: int = 1
) -> Compared:
    """Three models on made-up texts, with everything that can be found of them; for `copies` see `made_splits`."""
    texts = texts_of(tests, 0)
    label_ids = np.random.default_rng(1).integers(0, 2, tests)
    contestants = [
        Contestant(
            name=name,
            seeds=tuple(
                made_answers(name, accuracy, texts, label_ids, seed=10 * place + seed) for seed in range(seeds)
            ),
            seed_names=tuple(f"seed {seed}" for seed in range(seeds)),
            training_seconds=60.0 * (place + 1),
            training_cpu_seconds=90.0 * (place + 1),
            milliseconds_per_text=place + 0.5,
            parameters=1000,
            origin=f"run {place}",
            facts={"keras": "3"},
        )
        for place, (name, accuracy) in enumerate(zip(MODELS, (0.7, 0.8, 0.82), strict=True))
    ]
    return look_into(
        contestants,
        Setting(
            "reviews", "26 November 2026, 12:00", margin=0.02, unfair=unfair, lock=made_lock(), versions={"v": "1"}
        ),
        splits=made_splits(texts, copies),
        costs=cost_panel([made_cost(one) for one in contestants], {one.name: one.answers for one in contestants}),
        curves={"lstm": made_curve(contestants[1].answers)} if curves else {},
    )


def made_splits(tests: tuple[str, ...], copies: int = 1) -> SplitTexts:
    """Splits of which each starts with nearly the same hostile texts; training has `copies` of test texts besides."""
    train = (*texts_of(200, 2), *(f"{text}!" for text in tests[9 : 9 + copies]))
    return SplitTexts({"train": train, "validation": texts_of(50, 3), "test": tests}, np.arange(len(train)) % 2)


def made_lock() -> tuple[LockLine, ...]:
    return (LockLine("the rows", ("1f00c0de",) * 3), LockLine("the tuning budget", ("0 min", "30 min", "0 min")))


def made_cost(one: Contestant) -> ModelCost:
    milliseconds = one.milliseconds_per_text
    speed = Speed(milliseconds, 2 * milliseconds, 1000 / milliseconds, milliseconds, None)
    return ModelCost(one.name, one.training_cpu_seconds, one.parameters, 5_000_000, speed)


def made_curve(answers: Answers) -> LearningCurve:
    """A curve on which fewer rows turn more answers round."""

    def fit(rows: np.ndarray, seed: int) -> Examples:
        turned = np.random.default_rng(seed).random(len(answers)) < 20 / len(rows)
        return Examples(
            answers.label_ids, np.where(turned[:, None], answers.probabilities[:, ::-1], answers.probabilities)
        )

    return trace(fit, np.arange(400) % 2)
