"""The SavedModel: what it takes and gives, that it answers as evaluated, and that it comes into being whole."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Silent, small_config

from app import export
from app.errors import RequestError
from app.experiment import run_experiment
from app.export import publish, write_saved_model
from app.serving.inspection import answering_nodes, examine
from app.serving.predictor import Predictor
from app.serving.reading import Reading, read_reading
from app.serving.verification import VerificationError, verify
from app.training import build_model, portable_copy, predict_logits
from data.vocabulary import UNK_ID
from models import DEFAULT_MODELS, MODELS

ODD_TEXTS = {
    "empty": "",
    "blank": "   \t ",
    "one character": "x",
    "100,000 characters": "good film " * 10_000,
    "one long word": "o" * 100_000,
    "emoji": "😀🎬🍿",
    "NUL": "fine\x00film",
    "mixed scripts": "Фильм 电影 فيلم film",
    "combining marks": "e\u0301" * 40,
}


@pytest.fixture(scope="module")
def predictor(experiment):
    return Predictor(experiment.outcome.export)


@pytest.fixture(scope="module")
def written(experiment, tmp_path_factory):
    """The SavedModel of each model, written once more."""
    folder = tmp_path_factory.mktemp("written")
    for candidate in experiment.outcome.candidates:
        write_saved_model(candidate.run, folder / candidate.run.name, "reviews")
    return folder


@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_the_export_says_how_it_reads(name, experiment, written):
    (run,) = (candidate.run for candidate in experiment.outcome.candidates if candidate.run.name == name)
    longest = run.config.pipeline.sequence_length
    found = read_reading(written / name)
    assert found == Reading(longest_row=longest, window=longest, linear_memory=name != "transformer")


def test_the_signature_has_our_names_and_a_free_batch_dimension(predictor):
    signature = predictor.signatures["serving_default"]
    assert {name: (info.dtype, info.shape) for name, info in signature.inputs.items()} == {"text": ("DT_STRING", (-1,))}
    assert {name: (info.dtype, info.shape) for name, info in signature.outputs.items()} == {
        "label": ("DT_STRING", (-1,)),
        "confidence": ("DT_FLOAT", (-1,)),
        "probabilities": ("DT_FLOAT", (-1, 2)),
        "classes": ("DT_STRING", (-1, 2)),
    }


def test_what_is_served_is_what_was_evaluated(experiment, predictor):
    run = experiment.outcome.best.run
    texts = run.material.splits.test.texts
    served = predictor.predict(texts)
    np.testing.assert_allclose(served.probabilities, run.test_probabilities, atol=1e-5)
    assert served.labels == [served.label_names[label] for label in run.test_probabilities.argmax(axis=1)]
    assert served.label_names == run.material.splits.label_names
    np.testing.assert_allclose(served.confidence, served.probabilities.max(axis=1))


@pytest.mark.parametrize("name", ["linear", "lstm", "transformer"])
@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_odd_texts_get_finite_answers_that_do_not_depend_on_their_batch(written, name, text):
    served = loaded(written / name)
    together = served.predict([text, "The film is great", "dull"])
    alone = served.predict([text])
    assert np.isfinite(together.probabilities).all()
    np.testing.assert_allclose(together.probabilities[0], alone.probabilities[0], atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "lstm", "transformer"])
def test_no_texts_get_no_answers(written, name):
    answer = loaded(written / name).servable.run("serving_default", {"text": np.array([], dtype=object)})
    assert {output: tuple(array.shape) for output, array in answer.items()} == {
        "label": (0,),
        "confidence": (0,),
        "probabilities": (0, 2),
        "classes": (0, 2),
    }


@pytest.mark.parametrize("name", ["linear", "lstm", "transformer"])
def test_text_statistics_count_what_the_tokenizer_makes_of_each_text(experiment, written, name):
    run = experiment.run(name)
    length, tokenizer = run.config.pipeline.sequence_length, run.material.datasets.tokenizer
    texts = ["The film is great", "電影", "", "great " * (length - 1), "great " * length, "a \x00 電 e\u0301"]
    found = statistics(written / name, texts)
    pieces = tokenizer.pieces(tf.constant(texts)).to_list()
    assert found["num_tokens"].tolist() == [len(row) - 1 for row in pieces]
    shares = [row.count(UNK_ID) / max(1, len(row) - 1) for row in pieces]
    np.testing.assert_allclose(found["unknown_share"], shares)
    assert found["unknown_share"][1] == 1, "this vocabulary has no Chinese character"
    assert found["num_tokens"][2] == found["unknown_share"][2] == 0
    assert found["truncated"].tolist() == [False, False, False, False, True, False]


def test_text_statistics_have_the_dtypes_that_monitoring_reads_also_of_no_texts(written):
    found = statistics(written / "lstm", [])
    assert {output: (array.dtype.name, array.shape) for output, array in found.items()} == {
        "num_tokens": ("int32", (0,)),
        "unknown_share": ("float32", (0,)),
        "truncated": ("bool", (0,)),
    }


def test_a_long_text_is_truncated_as_in_training(experiment, predictor):
    length = experiment.outcome.best.run.config.pipeline.sequence_length
    long = "great " * (length - 1)
    answers = predictor.predict([long, long + "awful " * 50])
    np.testing.assert_array_equal(answers.probabilities[0], answers.probabilities[1])


def test_the_portable_copy_answers_bit_for_bit(experiment):
    for candidate in experiment.outcome.candidates:
        run = candidate.run
        test = run.material.datasets.test
        np.testing.assert_array_equal(
            predict_logits(portable_copy(run.model, run.config, run.material), test),
            predict_logits(run.model, test),
            err_msg=run.name,
        )


def test_a_gru_built_where_a_gpu_is_seen_holds_cudnn_only_until_it_is_portable(experiment, reviews, monkeypatch):
    # A stand-in for a machine with a GPU: what Keras asks before it picks the cuDNN kernel answers yes.
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    config, material = small_config("gru", reviews), experiment.run("linear").material
    as_trained = build_model(config, material)
    for model, holds in ((as_trained, True), (portable_copy(as_trained, config, material), False)):
        traced = tf.function(model, input_signature=[tf.TensorSpec([None, 8], tf.int32)]).get_concrete_function()
        assert ("CudnnRNNV3" in operations(traced.graph.as_graph_def())) is holds


def test_an_export_made_where_a_gpu_is_seen_holds_no_cudnn_and_runs_here(experiment, tmp_path, monkeypatch):
    # A stand-in for a machine with a GPU: what Keras and FastLSTM ask before they pick the cuDNN kernel answers yes.
    monkeypatch.setattr(sys.modules["keras.src.backend.tensorflow.rnn"], "_is_gpu_available", lambda: True)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["a device"] if kind == "GPU" else [])
    run = experiment.run("lstm")
    as_trained = build_model(run.config, run.material)
    traced = tf.function(as_trained, input_signature=[tf.TensorSpec([None, 8], tf.int32)]).get_concrete_function()
    assert "CudnnRNNV3" in operations(traced.graph.as_graph_def()), "Keras does not ask this probe any more"
    write_saved_model(run, tmp_path / "model", "reviews")
    assert not [node.op for node in answering_nodes(tmp_path / "model") if "cudnn" in node.op.lower()]
    monkeypatch.undo()
    assert examine(tmp_path / "model").problems == []


@pytest.mark.parametrize("name", [name for name in MODELS if name not in DEFAULT_MODELS])
def test_a_model_outside_the_defaults_is_served_as_it_answers(experiment, reviews, tmp_path, name):
    # Not trained, and one signature: what is looked at is the graph.
    config = small_config(name, reviews)
    run = experiment.run("linear")
    model = portable_copy(build_model(config, run.material), config, run.material)
    run = dataclasses.replace(run, config=config, model=model)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", export.classify_endpoint(run))
    archive.write_out(str(tmp_path / "1"), verbose=False)
    texts = ["The film is great", "", "dull " * 100]
    logits = model(run.material.datasets.tokenizer(tf.constant(texts)), training=False)
    served = tf.saved_model.load(str(tmp_path / "1"))
    answer = served.signatures["serving_default"](text=tf.constant(texts))
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits / run.temperature), atol=1e-5)
    nodes = answering_nodes(tmp_path / "1")
    assert not [node.op for node in nodes if "cudnn" in node.op.lower()]
    assert {node.device for node in nodes} == {""}


def test_no_operation_is_tied_to_a_device(written):
    for folder in written.iterdir():
        assert {node.device for node in answering_nodes(folder)} == {""}


def test_verify_runs_in_a_fresh_process_and_finds_nothing_wrong(experiment):
    found = verify(experiment.outcome.export)
    assert found.problems == []
    assert found.golden_texts == min(64, len(experiment.outcome.material.splits.test))
    assert found.largest_difference <= 1e-5
    assert found.signatures == ["predict_set", "serving_default", "text_statistics"]
    assert found.warmup_records == len(export.WARMUP_BATCHES) * len(export.WARMED_SIGNATURES)


def test_verify_names_a_changed_answer(experiment, tmp_path):
    copy = tmp_path / "1"
    shutil.copytree(experiment.outcome.export, copy)
    golden_file = copy / "assets.extra" / "golden.json"
    golden = json.loads(golden_file.read_text(encoding="utf-8"))
    golden["probabilities"][0] = golden["probabilities"][0][::-1]
    golden["labels"][1] = "another label"
    golden_file.write_text(json.dumps(golden), encoding="utf-8")
    with pytest.raises(VerificationError, match=r"differs by .* labels differ"):
        verify(copy)


def test_verify_names_changed_weights(experiment, tmp_path):
    copy = tmp_path / "1"
    run = experiment.outcome.best.run
    write_saved_model(dataclasses.replace(run, temperature=run.temperature * 1.5), copy, "reviews")
    with pytest.raises(VerificationError, match="differs by"):
        verify(copy)


def test_verify_names_missing_warmup_records(experiment, tmp_path):
    copy = tmp_path / "1"
    shutil.copytree(experiment.outcome.export, copy)
    (copy / "assets.extra" / "tf_serving_warmup_requests").unlink()
    assert any("warmup" in problem for problem in examine(copy).problems)


def test_what_does_not_tell_how_it_reads_is_served_all_the_same_and_verify_says_so(experiment, tmp_path, caplog):
    copy = tmp_path / "1"
    shutil.copytree(experiment.outcome.export, copy)
    (copy / "assets.extra" / "reading.json").write_text("{}", encoding="utf-8")
    assert any("reading.json does not tell" in problem for problem in examine(copy).problems)
    assert "reading.json does not tell" in caplog.text


@pytest.mark.parametrize("missing", ["saved_model.pb", "assets.extra/golden.json"])
def test_verify_refuses_what_is_no_export(experiment, tmp_path, missing):
    copy = tmp_path / "1"
    shutil.copytree(experiment.outcome.export, copy)
    (copy / missing).unlink()
    with pytest.raises(RequestError, match=missing):
        verify(copy)


def test_versions_are_the_next_integers(tmp_path):
    base = tmp_path / "reviews"
    (base / "3").mkdir(parents=True)
    (base / "v9").mkdir()
    for expected in ("4", "5"):
        folder = tmp_path / "written"
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"content")
        version = publish(folder, base)
        assert version == base / expected
        assert (version / "saved_model.pb").read_bytes() == b"content"
        assert not folder.exists()


def test_a_run_whose_export_fails_its_check_leaves_no_version(reviews, tmp_path, monkeypatch):
    def refuse(folder):
        raise VerificationError(f"{folder}: refused")

    # Only the check is replaced: what happens after a real failure is what is tested.
    monkeypatch.setattr("app.experiment.verify", refuse)
    with pytest.raises(VerificationError):
        run_experiment([small_config("linear", reviews)], tmp_path, Silent())
    assert not (tmp_path / "exports" / "reviews").exists()


def operations(graph) -> set[str]:
    """The operations of a GraphDef, those in its functions included."""
    inside = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *inside]}


def statistics(folder, texts: list[str]) -> dict[str, np.ndarray]:
    """What the signature text_statistics gives of texts."""
    encoded = np.array([text.encode() for text in texts], dtype=object)
    return loaded(folder).servable.run("text_statistics", {"text": encoded})


@functools.cache
def loaded(folder) -> Predictor:
    """A Predictor for the folder, loaded once."""
    return Predictor(folder)
