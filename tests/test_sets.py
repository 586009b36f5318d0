"""The signature `predict_set`: its graph against NumPy, over every road, and against the files beside it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
import tensorflow as tf
from test_road_parity import serving

from app.calibration import softmax
from app.conformal import abstains, fit_threshold, prediction_sets
from app.errors import RequestError
from app.export import sets_endpoint, write_saved_model
from app.serving.calibration import Calibration, calibration_problems, read_calibration
from app.serving.expectation import TOLERANCE
from app.serving.golden import Golden, encoded, read_golden
from app.serving.inspection import examine
from app.serving.parity import compare, problems
from app.serving.servable import Servable
from app.training import predict_logits

NAMES = ("calm", "fierce", "mild", "stern", "wry")


def asked(threshold: float, texts: list[str]) -> dict[str, np.ndarray]:
    """The answers of the endpoint to texts that hold their own logits."""
    run: Any = SimpleNamespace(
        material=SimpleNamespace(
            splits=SimpleNamespace(label_names=NAMES), datasets=SimpleNamespace(tokenizer=tf.strings.split)
        ),
        model=lambda words, training: tf.strings.to_number(words.to_tensor("0", shape=[None, len(NAMES)])),
        temperature=2.0,
        conformal_threshold=threshold,
    )
    answers = sets_endpoint(run)(tf.constant(texts, tf.string, [len(texts)]))
    return {name: output.numpy() for name, output in answers.items()}


def written_out(logits: np.ndarray) -> list[str]:
    return [" ".join(f"{value:.4f}" for value in row) for row in logits]


LOGITS = np.vstack([np.random.default_rng(0).normal(0, 4, (200, 5)), np.zeros((1, 5)), [[1, 3, 3, 0, 0]]])


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.2, 0.35, 0.6, 1.0])
def test_the_graph_answers_as_numpy_does(threshold):
    answers = asked(threshold, written_out(LOGITS))
    probabilities = answers["probabilities"]
    sets = prediction_sets(probabilities, np.float32(threshold))
    np.testing.assert_array_equal(answers["in_set"], sets)
    np.testing.assert_array_equal(answers["set_size"], sets.sum(axis=1))
    np.testing.assert_array_equal(answers["abstain"], abstains(sets))
    for row, members, label_set in zip(probabilities, sets, answers["label_set"], strict=True):
        likeliest_first = [NAMES[label].encode() for label in np.argsort(-row, kind="stable") if members[label]]
        assert label_set.tolist() == likeliest_first + [b""] * (len(NAMES) - len(likeliest_first))
    np.testing.assert_array_equal(answers["label_set"][:, 0], answers["label"])


def test_no_texts_have_no_sets():
    forms = {name: (output.dtype.name, output.shape) for name, output in asked(0.3, []).items()}
    assert forms == {
        "label": ("object", (0,)),
        "confidence": ("float32", (0,)),
        "probabilities": ("float32", (0, 5)),
        "classes": ("object", (0, 5)),
        "label_set": ("object", (0, 5)),
        "in_set": ("bool", (0, 5)),
        "set_size": ("int32", (0,)),
        "abstain": ("bool", (0,)),
    }


# The export of the trained champion, half of whose sets hold both labels


@pytest.fixture(scope="module")
def export(experiment, tmp_path_factory):
    run = experiment.run("linear")
    threshold = float(np.median(run.test_probabilities.min(axis=1)))
    folder = tmp_path_factory.mktemp("sets") / "reviews" / "1"
    write_saved_model(dataclasses.replace(run, conformal_threshold=threshold), folder, "reviews")
    return folder


@pytest.fixture(scope="module")
def servable(export) -> Iterator[Servable]:
    servable = Servable(export)
    yield servable
    servable.close()


@pytest.fixture
def copy(export, tmp_path):
    folder = tmp_path / "reviews" / "1"
    shutil.copytree(export, folder)
    return folder


def test_the_champion_carries_the_threshold_that_validation_gave_for_the_coverage_of_the_configuration(experiment):
    run = experiment.outcome.best.run
    validation = run.material.datasets.validation
    probabilities = softmax(predict_logits(run.model, validation), run.temperature)
    told = read_calibration(experiment.outcome.export)
    assert told == Calibration(
        temperature=run.temperature,
        coverage=0.9,
        threshold=fit_threshold(validation.label_ids, probabilities, 0.9),
        score="lac",
        validation_rows=len(validation),
    )


def test_the_signature_has_our_names_and_a_free_batch_dimension(servable):
    signature = servable.signatures["predict_set"]
    assert {name: (info.dtype, info.shape) for name, info in signature.inputs.items()} == {"text": ("DT_STRING", (-1,))}
    assert {name: (info.dtype, info.shape) for name, info in signature.outputs.items()} == {
        "label": ("DT_STRING", (-1,)),
        "confidence": ("DT_FLOAT", (-1,)),
        "probabilities": ("DT_FLOAT", (-1, 2)),
        "classes": ("DT_STRING", (-1, 2)),
        "label_set": ("DT_STRING", (-1, 2)),
        "in_set": ("DT_BOOL", (-1, 2)),
        "set_size": ("DT_INT32", (-1,)),
        "abstain": ("DT_BOOL", (-1,)),
    }


def test_the_sets_of_the_test_split_are_those_of_numpy(experiment, export, servable):
    run, threshold = experiment.run("linear"), read_calibration(export).threshold
    answers = servable.run("predict_set", {"text": encoded(list(run.material.splits.test.texts))})
    clear = (np.abs(run.test_probabilities - threshold) > TOLERANCE).all(axis=1)
    sets = prediction_sets(run.test_probabilities, threshold)
    assert 0 < abstains(sets)[clear].sum() < clear.sum()
    np.testing.assert_array_equal(answers["in_set"][clear], sets[clear])


def test_a_set_does_not_depend_on_the_texts_beside_it(servable):
    texts = encoded(["", "The film is great", "dull " * 40, "x"])
    together = servable.run("predict_set", {"text": texts})
    for row in range(len(texts)):
        alone = servable.run("predict_set", {"text": texts[row : row + 1]})
        for name in ("in_set", "label_set", "set_size", "abstain"):
            np.testing.assert_array_equal(together[name][row], alone[name][0])
    assert servable.run("predict_set", {"text": texts[:0]})["in_set"].shape == (0, 2)


def test_sets_over_rest_in_rows_and_in_columns(export):
    golden = read_golden(export)
    with serving(export) as (url, _):
        rows, columns = (
            requests.post(
                f"{url}/v1/models/reviews:predict", json={"signature_name": "predict_set", **body}, timeout=10
            ).json()
            for body in ({"instances": golden.texts}, {"inputs": {"text": golden.texts}})
        )
    assert columns["outputs"]["in_set"] == golden.in_set.tolist()
    assert columns["outputs"]["set_size"] == golden.in_set.sum(axis=1).tolist()
    assert {row.count("") for row in columns["outputs"]["label_set"]} == {0, 1}
    for name in ("in_set", "label_set", "set_size", "abstain", "label"):
        assert [row[name] for row in rows["predictions"]] == columns["outputs"][name]


# What verification finds


def changed(folder, file: str, **values: Any) -> None:
    path = folder / "assets.extra" / file
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_verify_names_a_threshold_that_is_not_the_graph_s_however_near(copy):
    threshold = read_calibration(copy).threshold
    changed(copy, "calibration.json", threshold=threshold + 1e-6, temperature=9.5)
    found = examine(copy).problems
    assert len(found) == 3
    assert "calibration.json says temperature 9.5, the graph computes with" in found[0]
    assert "calibration.json says threshold" in found[1]
    assert "the golden sets are of" in found[2]


def test_verify_names_golden_sets_that_are_not_the_graph_s(copy):
    golden = read_golden(copy)
    in_set = golden.in_set.copy()
    in_set[1] = ~in_set[1]
    changed(copy, "golden.json", in_set=in_set.tolist())
    found = examine(copy).problems
    assert any(
        re.search(r"^SavedModel, signature 'predict_set': 1 of \d+ sets differ .* text 2$", one) for one in found
    )


def test_an_export_without_sets_in_its_golden_answers_is_held_against_itself(copy):
    path = copy / "assets.extra" / "golden.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["in_set"], content["threshold"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert read_golden(copy).in_set is None
    assert examine(copy).problems == []


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"in_set": [[True]]}, r"sets of shape \(1, 1\): expected"),
        ({"threshold": None}, "cannot be read as golden answers"),
    ],
)
def test_damaged_golden_sets_are_refused(copy, values, problem):
    changed(copy, "golden.json", **values)
    with pytest.raises(RequestError, match=problem):
        read_golden(copy)


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"temperature": NaN}'])
def test_a_damaged_calibration_is_refused(content, tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "calibration.json").write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=r"calibration\.json"):
        read_calibration(tmp_path)


GOLDEN = Golden(
    label_names=["a", "b", "c"],
    texts=["one", "two"],
    labels=["a", "c"],
    probabilities=np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]),
    threshold=0.25,
    in_set=np.array([[True, True, False], [False, True, True]]),
)
FILE = Calibration(temperature=1.5, coverage=0.9, threshold=0.25, score="lac", validation_rows=80)
CONSTANTS = {"calibration_temperature": {1.5}, "conformal_threshold": {0.25}}


@pytest.mark.parametrize(
    ("found", "constants", "golden", "has_sets", "told"),
    [
        (FILE, CONSTANTS, GOLDEN, True, []),
        (None, {}, replace(GOLDEN, threshold=None, in_set=None), False, []),
        (None, CONSTANTS, GOLDEN, True, ["is missing"]),
        (FILE, CONSTANTS, GOLDEN, False, ["no signature 'predict_set'"]),
        (FILE, {}, GOLDEN, True, ["graph computes with none", "graph computes with none"]),
        (replace(FILE, threshold=0.5), CONSTANTS, GOLDEN, True, ["computes with 0.25", "golden sets are of 0.25"]),
        (FILE, {**CONSTANTS, "calibration_temperature": {1.5, 2.0}}, GOLDEN, True, ["computes with 1.5 and 2"]),
    ],
)
def test_file_graph_and_golden_sets_have_to_agree(found, constants, golden, has_sets, told):
    problems_found = list(calibration_problems(found, constants, golden, has_sets))
    assert len(problems_found) == len(told)
    for problem, part in zip(problems_found, told, strict=True):
        assert part in problem


def answer(golden: Golden, **outputs: Any) -> dict[str, dict[str, np.ndarray]]:
    """What `predict_set` answers to `GOLDEN`, with some outputs changed."""
    sets = {
        "probabilities": golden.probabilities,
        "confidence": golden.probabilities.max(axis=1),
        "label": np.array([b"a", b"c"], object),
        "classes": np.array([[b"a", b"b", b"c"]] * 2, object),
        "in_set": np.array([[True, True, False], [False, True, True]]),
        "set_size": np.array([2, 2], np.int32),
        "abstain": np.array([True, True]),
        "label_set": np.array([[b"a", b"b", b""], [b"c", b"b", b""]], object),
    }
    return {"predict_set": {**sets, **{name: np.asarray(value) for name, value in outputs.items()}}}


def test_the_golden_sets_are_what_is_expected():
    assert problems(compare("road", answer(GOLDEN), GOLDEN)) == []


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("in_set", [[True, True, False], [False, False, True]]),
        ("set_size", np.array([2, 1], np.int32)),
        ("abstain", [True, False]),
        ("label_set", np.array([[b"a", b"b", b""], [b"b", b"c", b""]], object)),
    ],
)
def test_a_changed_set_is_named_but_not_where_rounding_decides(output, value):
    (found,) = problems(compare("road", answer(GOLDEN, **{output: value}), GOLDEN))
    assert found.startswith("road, signature 'predict_set': 1 of 2 ")
    assert found.endswith("the first at text 2")
    # A label at the threshold may be in or out; of two members equally likely either may come first.
    at_threshold = replace(GOLDEN, threshold=0.3 + 0.5 * TOLERANCE)
    tied = replace(GOLDEN, probabilities=np.array([[0.6, 0.3, 0.1], [0.2, 0.4, 0.4]]))
    golden = tied if output == "label_set" else at_threshold
    assert problems(compare("road", answer(golden, **{output: value}), golden)) == []
