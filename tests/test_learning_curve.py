"""The learning curve: subsets, the power law through its points, and whether forecasts hold the truth."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from conftest import Silent, small_config
from scipy import stats

from app.analysis.learning_curve import (
    Forecast,
    LearningCurve,
    PowerLaw,
    extrapolate,
    fit_power_law,
    nested_subsets,
    resample_means,
    trace,
)
from app.errors import RequestError
from app.learning_curves import learning_curve, part_of
from app.metrics import Examples
from app.statistics import Interval

ROWS = np.array([1_000, 2_000, 5_000, 10_000])


def test_subsets_are_nested_stratified_and_seeded():
    label_ids = np.array([0] * 60 + [1] * 30 + [2] * 3)
    subsets = nested_subsets(label_ids, seed=3)
    assert [np.bincount(label_ids[rows]).tolist() for rows in subsets] == [
        [6, 3, 1],
        [12, 6, 1],
        [30, 15, 2],
        [60, 30, 3],
    ]
    for smaller, larger in pairwise(subsets):
        assert set(smaller) < set(larger)
        assert (np.diff(larger) > 0).all()
    assert all((a == b).all() for a, b in zip(subsets, nested_subsets(label_ids, seed=3), strict=True))
    assert (subsets[0] != nested_subsets(label_ids, seed=4)[0]).any()


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.2, 1.0), (0.0, 0.5, 1.0), (0.5, 0.5, 1.0), (0.5, 1.0, 1.5)])
def test_shares_that_do_not_rise_to_all_are_refused(shares):
    with pytest.raises(RequestError, match="rising numbers"):
        nested_subsets([0, 1], shares)


@pytest.mark.parametrize(
    "law", [PowerLaw(0.15, 2.0, 0.4), PowerLaw(0.05, 1.5, 0.25), PowerLaw(0.2, 5.0, 0.6), PowerLaw(0.0, 3.0, 0.35)]
)
def test_a_power_law_without_noise_is_recovered(law: PowerLaw):
    found = fit_power_law(ROWS.astype(float), law.error(ROWS), count=2_000)
    assert found.a == pytest.approx(law.a, abs=1e-3)
    assert found.b == pytest.approx(law.b, rel=1e-2)
    assert found.c == pytest.approx(law.c, rel=1e-2)


def test_the_fit_is_that_of_scipy_s_curve_fit():
    from scipy import optimize

    errors, count = np.array([0.31, 0.27, 0.235, 0.22]), 1_500
    found = fit_power_law(ROWS.astype(float), errors, count)
    shifted = (errors * count + 2) / (count + 4)
    (a, b, c), _ = optimize.curve_fit(
        lambda n, a, b, c: a + b * (n / 10_000) ** -c,
        ROWS.astype(float),
        errors,
        p0=(0.1, 0.1, 0.5),
        sigma=np.sqrt(shifted * (1 - shifted) / count),
        bounds=([0, 0, 0], [1, 1, 2]),
    )
    np.testing.assert_allclose(found.error(ROWS), a + b * (ROWS / 10_000) ** -c, atol=1e-5)


def test_points_without_any_error_give_a_law_without_errors():
    law = fit_power_law(ROWS.astype(float), np.zeros(4), count=100)
    assert law.error(20_000) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_forecasts_hold_the_truth():
    # Test examples that are hard for one size are hard for the next: a Gaussian copula with the law's error rates.
    law, count, curves = PowerLaw(0.15, 2.0, 0.4), 1_300, 25
    generator = np.random.default_rng(0)
    held = np.zeros((curves, 2))
    for curve in range(curves):
        hardness = np.sqrt(0.7) * generator.standard_normal(count) + np.sqrt(0.3) * generator.standard_normal(
            (4, count)
        )
        errors = (hardness < stats.norm.ppf(law.error(ROWS))[:, None]).astype(float)[:, None, :]
        resampled = resample_means(errors, resamples=60, seed=curve)
        _, forecasts = extrapolate(ROWS, errors.mean(axis=(1, 2)), resampled, count)
        for place, forecast in enumerate(forecasts):
            held[curve, place] = forecast.accuracy.low <= 1 - law.error(forecast.rows) <= forecast.accuracy.high
    # 95% are meant, and about 92% come true; 25 curves of which fewer than 19 hold it would be one chance in 100.
    assert (held.mean(axis=0) >= 19 / 25).all()


def test_more_repeats_cover_the_luck_of_training():
    generator = np.random.default_rng(1)
    values = generator.random((1, 1, 400)) < 0.2
    lucky = np.stack([values[:, 0], values[:, 0] ^ (generator.random((1, 400)) < 0.1)], axis=1).astype(float)
    assert resample_means(lucky).std() > 1.1 * resample_means(lucky[:, :1]).std()


def answering(law: PowerLaw, count: int = 1_000):
    """A model that makes as many errors as the law says; the examples that are hard stay hard."""

    def fit(rows, seed):
        errors = np.arange(count) < round(count * float(law.error(len(rows))))
        probabilities = np.where(errors[:, None], [0.2, 0.8], [0.8, 0.2])
        return Examples(np.zeros(count, np.int64), probabilities)

    return fit


def test_a_curve_is_traced_from_growing_parts_of_the_rows():
    law = PowerLaw(0.1, 2.0, 0.5)
    curve = trace(answering(law), [0, 1] * 1_000)
    assert [point.rows for point in curve.points] == [200, 400, 1_000, 2_000]
    assert [point.share for point in curve.points] == [0.1, 0.2, 0.5, 1.0]
    for point in curve.points:
        assert point.accuracy.value == pytest.approx(1 - law.error(point.rows), abs=0.001)
        assert point.accuracy.low < point.accuracy.value < point.accuracy.high
        wrong = 1 - point.accuracy.value
        assert point.log_loss.value == pytest.approx(-wrong * np.log(0.2) - (1 - wrong) * np.log(0.8))
    assert [forecast.rows for forecast in curve.forecasts] == [4_000, 8_000]
    assert curve.forecasts[0].gain.value == pytest.approx(law.error(2_000) - law.error(4_000), abs=0.004)
    assert len(curve.sentences) == 3
    assert "luck of one training run" in curve.sentences[-1]
    json.dumps(curve.to_dict(), allow_nan=False)


def test_two_shares_are_too_few():
    with pytest.raises(RequestError, match="at least 3"):
        trace(answering(PowerLaw(0.1, 2.0, 0.5)), [0, 1] * 50, shares=(0.5, 1.0))


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(0.012, 0.006, 0.02), "At 100% the curve has not flattened: twice the rows would give at least 0.5"),
        (
            Interval(0.001, 0.0, 0.004),
            "At 100% the curve has flattened: twice the rows would give less than 0.5 points",
        ),
        (Interval(0.006, 0.001, 0.02), "Whether the curve has flattened at 100% stays open"),
    ],
)
def test_the_sentences_say_whether_more_rows_help(gain: Interval, said: str):
    curve = LearningCurve((), PowerLaw(0.1, 1, 0.5), (Forecast(2, 20_000, Interval(0.8, 0.7, 0.9), gain),), repeats=3)
    assert curve.sentences[1].startswith(said)
    assert curve.sentences[0].startswith(f"Twice the rows (20,000) would be expected to give +{100 * gain.value:.1f}")
    assert len(curve.sentences) == 2


def test_a_part_of_the_material_has_its_own_vocabulary_and_the_whole_test_split(experiment, reviews, tmp_path):
    material = experiment.outcome.material
    rows = nested_subsets(material.splits.train.label_ids, (0.1, 0.5, 1.0))[0]
    part = part_of(material, rows, small_config("linear", reviews), tmp_path)
    assert part.splits.train.texts == tuple(material.splits.train.texts[row] for row in rows)
    assert part.vocabulary != material.vocabulary
    assert part.splits.test is material.splits.test
    assert len(part.datasets.train) == len(rows)


@pytest.mark.slow
def test_a_real_model_s_curve(experiment, reviews, tmp_path):
    config, listener = small_config("linear", reviews), Silent()
    curve = learning_curve(config, experiment.outcome.material, tmp_path, shares=(0.2, 0.5, 1.0), listen=listener.epoch)
    # All rows are what the experiment trained on: the last point is its own figure.
    last, trained = curve.points[-1], experiment.run("linear")
    assert last.rows == len(experiment.outcome.material.splits.train)
    assert last.accuracy.value == pytest.approx(trained.evaluation.metrics["accuracy"].value)
    assert last.log_loss.value == pytest.approx(trained.evaluation.metrics["log_loss"].value, abs=1e-4)
    assert len(listener.validation_losses["linear"]) == 3 * 2
    assert list(tmp_path.iterdir()) == []
