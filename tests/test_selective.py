import json

import numpy as np
import pytest
from made_answers import made_answers

from app.analysis.selective import calibration, risk_coverage
from app.calibration import expected_calibration_error, softmax


def test_the_curve_by_hand():
    found = risk_coverage(made_answers([0, 1, 0, 1], confidence=[0.6, 0.9, 0.8, 0.7]))
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert found.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # Both errors last: 0, 0, 1/3, 2/4.
    assert found.best_area == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_equal_confidence_gives_the_error_rate_at_every_coverage():
    found = risk_coverage(made_answers([0, 1, 1, 1], confidence=0.8))
    np.testing.assert_allclose(found.risk, [0.25] * 4)
    assert found.area == pytest.approx(0.25)


def test_the_order_of_texts_does_not_matter():
    chance = np.random.default_rng(0)
    right, confidence = chance.random(200) < 0.8, chance.integers(51, 99, 200) / 100
    order = chance.permutation(200)
    labels = np.zeros(200, dtype=np.int64)
    first = risk_coverage(made_answers(right, confidence=confidence, label_ids=labels))
    second = risk_coverage(made_answers(right[order], confidence=confidence[order], label_ids=labels))
    np.testing.assert_allclose(first.risk, second.risk)


def test_accuracy_at_a_coverage():
    right = np.arange(100) >= 10  # the ten least sure are wrong
    found = risk_coverage(made_answers(right, confidence=np.linspace(0.6, 0.99, 100)))
    assert [(at.coverage, at.rows, at.accuracy.value) for at in found.at] == [
        (0.8, 80, 1.0),
        (0.9, 90, 1.0),
        (0.95, 95, 90 / 95),
        (1.0, 100, 0.9),
    ]
    assert found.at[1].confidence == pytest.approx(np.linspace(0.6, 0.99, 100)[10])
    assert found.at[3].accuracy.low < 0.9 < found.at[3].accuracy.high
    assert found.area == pytest.approx(found.best_area)


def test_calibration_is_shown_before_and_after_the_temperature():
    chance = np.random.default_rng(0)
    made = made_answers(chance.random(500) < 0.7, confidence=0.95, temperature=3.0)
    found = calibration(made)
    assert found.before.expected_calibration_error == pytest.approx(0.25, abs=0.06)
    assert found.after.expected_calibration_error < 0.1
    after = expected_calibration_error(made.label_ids, softmax(made.logits, 3.0))
    assert found.after.expected_calibration_error == pytest.approx(after)


def test_it_is_json_and_a_long_curve_is_thinned():
    made = made_answers(np.arange(5000) % 4 > 0, confidence=np.linspace(0.5, 0.99, 5000))
    curve, bins = risk_coverage(made).to_dict(), calibration(made).to_dict()
    assert len(curve["risk"]) == 200
    assert curve["coverage"][-1] == 1
    assert bins["before"]["confidence"][0] is None
    assert json.loads(json.dumps([curve, bins], allow_nan=False)) == [curve, bins]
