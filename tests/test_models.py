"""The contract of every model in MODELS: whoever adds one is tested here without writing a test."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import MODELS

VOCABULARY_SIZE, NUM_CLASSES, SEQUENCE_LENGTH = 60, 3, 24
TOLERANCE = 1e-5


def build(name: str, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    entry = MODELS[name]
    model = entry.build(
        entry.config(),
        vocabulary_size=VOCABULARY_SIZE,
        num_classes=NUM_CLASSES,
        sequence_length=SEQUENCE_LENGTH,
    )
    if entry.adapt is not None:
        # Twice, as in a training split: what stands in one row alone may count as nothing.
        entry.adapt(model, entry.config(), [(token_ids(8), np.arange(8, dtype="int32") % NUM_CLASSES)] * 2)
    return model


def token_ids(rows: int, seed: int = 1) -> np.ndarray:
    """Rows of 2 to 12 pieces after [CLS] (id 2), padded with 0 to 13."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((rows, 13), "int32")
    for row in ids:
        length = rng.integers(2, 13)
        row[0] = 2
        row[1 : 1 + length] = rng.integers(3, VOCABULARY_SIZE, length)
    return ids


def logits(model: keras.Model, ids: np.ndarray) -> np.ndarray:
    """As evaluation and serving call it: in a graph, for any number of rows and steps."""
    signature = [tf.TensorSpec([None, None], tf.int32)]
    return tf.function(lambda batch: model(batch, training=False), input_signature=signature)(ids).numpy()


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> keras.Model:
    return build(request.param)


def fit_steps(model: keras.Model, ids: np.ndarray, label_ids: np.ndarray, steps: int, rate: float) -> list[float]:
    # A graph is traced only where its steps are many enough to earn that back.
    model.compile(
        run_eagerly=steps < 10,
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return [float(model.train_on_batch(ids, label_ids)) for _ in range(steps)]


def test_takes_token_ids_and_gives_logits(model):
    (token_ids_input,) = model.inputs
    assert token_ids_input.name == "token_ids"
    assert token_ids_input.dtype == "int32"
    given = logits(model, token_ids(4))
    assert given.shape == (4, NUM_CLASSES)
    assert given.dtype == np.float32


def test_padding_does_not_change_a_prediction(model):
    ids = token_ids(6)
    longer = np.pad(ids, [(0, 0), (0, SEQUENCE_LENGTH - ids.shape[1])])
    np.testing.assert_allclose(logits(model, ids), logits(model, longer), atol=TOLERANCE)


def test_batch_mates_do_not_change_a_prediction(model):
    ids = token_ids(6)
    alone = np.concatenate([logits(model, ids[[row], : np.count_nonzero(ids[row])]) for row in range(6)])
    np.testing.assert_allclose(logits(model, ids), alone, atol=TOLERANCE)


def test_order_in_the_batch_does_not_change_a_prediction(model):
    ids, order = token_ids(6), np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_allclose(logits(model, ids)[order], logits(model, ids[order]), atol=TOLERANCE)


def test_different_texts_get_different_logits(model):
    given = logits(model, token_ids(6))
    assert len(np.unique(given.round(6), axis=0)) == 6


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([[2]], id="an empty text: [CLS] alone"),
        pytest.param([[2, 5]], id="one piece"),
        pytest.param([[0, 0, 0]], id="padding alone, which the pipeline never makes"),
        pytest.param([[2] + [1] * (SEQUENCE_LENGTH - 1)], id="[UNK] up to the longest row"),
        pytest.param([[2, 7, 7, 7, 7, 7, 7, 7]], id="one piece again and again"),
    ],
)
def test_odd_rows_get_finite_logits(model, ids):
    assert np.isfinite(logits(model, np.array(ids, "int32"))).all()


@pytest.mark.parametrize("name", list(MODELS))
def test_overfits_eight_examples(name):
    ids, label_ids = token_ids(8), np.array([0, 1, 2, 0, 1, 2, 0, 1], "int32")
    model = build(name)
    fit_steps(model, ids, label_ids, steps=120, rate=0.03)
    assert (logits(model, ids).argmax(axis=1) == label_ids).all()


@pytest.mark.parametrize("name", list(MODELS))
def test_the_same_seed_gives_the_same_loss_and_another_seed_another(name):
    ids, label_ids = token_ids(8), np.array([0, 1, 2, 0, 1, 2, 0, 1], "int32")
    first, second = (fit_steps(build(name, seed=5), ids, label_ids, steps=3, rate=0.01) for _ in range(2))
    np.testing.assert_allclose(first, second, rtol=1e-5)  # threads add in any order
    if name != "linear":  # it starts from counts, without chance
        other = fit_steps(build(name, seed=6), ids, label_ids, steps=3, rate=0.01)
        assert not np.allclose(first, other, rtol=1e-3)


@pytest.mark.parametrize("name", list(MODELS))
def test_saved_and_loaded_it_answers_the_same(name, tmp_path):
    model, ids = build(name), token_ids(6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(logits(model, ids), logits(loaded, ids))


@pytest.mark.parametrize("name", list(MODELS))
def test_the_portable_configuration_takes_the_same_weights(name):
    entry, model, ids = MODELS[name], build(name), token_ids(6)
    portable = entry.build(
        entry.config().portable(),
        vocabulary_size=VOCABULARY_SIZE,
        num_classes=NUM_CLASSES,
        sequence_length=SEQUENCE_LENGTH,
    )
    portable.set_weights(model.get_weights())
    # Compiled steps round otherwise; what is evaluated and served is always the portable network.
    np.testing.assert_allclose(logits(model, ids), logits(portable, ids), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        *(
            (name, positions)
            for name in ("transformer", "performer", "fnet")
            for positions in ("learned", "sinusoidal")
        ),
        ("transformer", "rotary"),
        ("transformer", "alibi"),
    ],
)
def test_a_model_with_positions_reads_the_order_of_its_pieces(name, positions):
    entry = MODELS[name]
    keras.utils.set_random_seed(0)
    model = entry.build(
        entry.config(positions=positions), vocabulary_size=20, num_classes=2, sequence_length=SEQUENCE_LENGTH
    )
    forwards, backwards = np.array([[2, 5, 6, 7]], "int32"), np.array([[2, 7, 6, 5]], "int32")
    assert not np.allclose(logits(model, forwards), logits(model, backwards), atol=1e-4)


def test_linear_counts_are_those_worked_by_hand():
    entry = MODELS["linear"]
    config = entry.config(ngrams=1, num_buckets=2**10, smoothing=1.0)
    model = entry.build(config, vocabulary_size=20, num_classes=2, sequence_length=8)
    # Piece 5 stands in two rows of class 1 and none of class 0; twice in one row counts once.
    batch = (np.array([[2, 5, 5], [2, 5, 0], [2, 6, 0]], "int32"), np.array([1, 1, 0], "int32"))
    entry.adapt(model, config, [batch])
    bucket = int(keras.ops.convert_to_numpy(model.get_layer("ngrams")(np.array([[5]], "int32"))).max())
    inside, outside = np.array([2 + 1, 0 + 1]), np.array([0 + 1, 2 + 1])
    total_inside, total_outside = (
        4 + 2**10,
        2 + 2**10,
    )  # class 1: [CLS] twice and 5 twice; class 0: [CLS] and 6
    expected = np.log((inside[0] / total_inside) / (outside[0] / total_outside))
    ratios = keras.ops.convert_to_numpy(model.get_layer("logits").ratios)
    np.testing.assert_allclose(ratios[bucket], [-expected, expected], rtol=1e-5)


def largest_array(name: str, length: int) -> int:
    """Numbers in the largest array, weights apart, of an export's graph, for one row of `length` pieces.

    What has a shape that is known only when it runs is not seen.
    """
    config, sizes = MODELS[name].config().portable(), {"vocabulary_size": VOCABULARY_SIZE, "num_classes": NUM_CLASSES}
    model = MODELS[name].build(config, **sizes, sequence_length=length)
    run = tf.function(lambda ids: model(ids, training=False)).get_concrete_function(
        tf.TensorSpec([1, length], tf.int32)
    )
    graph = run.graph.as_graph_def(add_shapes=True)
    bodies = (graph.node, *(function.node_def for function in graph.library.function))  # branches and loops too
    computed = (node for body in bodies for node in body if node.op != "ReadVariableOp")
    shapes = (tf.TensorShape(shape) for node in computed for shape in node.attr["_output_shapes"].list.shape)
    return max(shape.num_elements() for shape in shapes if shape.is_fully_defined())


def growth_of_memory(name: str) -> float:
    return largest_array(name, 4096) / largest_array(name, 2048)


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.linear_memory])
def test_memory_grows_with_the_length_where_the_entry_says_so(name):
    assert growth_of_memory(name) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("name", ["transformer", "fnet"])
def test_memory_that_grows_with_the_square_of_the_length_would_be_seen(name):
    assert not MODELS[name].linear_memory
    assert growth_of_memory(name) == pytest.approx(4, rel=0.1)
