"""The n-grams beside an encoder: what they add, how they learn, and the encoder without them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from app.fitting import learner_of
from models import MODELS
from models.linear import LinearConfig
from models.wide import encoder_alone
from tests.test_models import NUM_CLASSES, SEQUENCE_LENGTH, VOCABULARY_SIZE, logits, token_ids


def build(name: str, **settings) -> keras.Model:
    keras.utils.set_random_seed(0)
    entry = MODELS[name]
    config = entry.config(wide_buckets=512, **settings)
    model = entry.build(
        config, vocabulary_size=VOCABULARY_SIZE, num_classes=NUM_CLASSES, sequence_length=SEQUENCE_LENGTH
    )
    batch = (token_ids(8), np.arange(8, dtype="int32") % NUM_CLASSES)
    assert entry.adapt is not None
    entry.adapt(model, config, [batch] * 2)
    return model


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_the_logits_are_those_of_the_encoder_and_those_of_the_ngrams(name):
    model, ids = build(name), token_ids(4)
    encoder = encoder_alone(model)
    assert encoder is not None
    linear = MODELS["linear"]
    ngrams = linear.build(
        LinearConfig(num_buckets=512), vocabulary_size=VOCABULARY_SIZE, num_classes=NUM_CLASSES, sequence_length=24
    )
    linear.adapt(ngrams, LinearConfig(num_buckets=512), [(token_ids(8), np.arange(8) % NUM_CLASSES)] * 2)
    np.testing.assert_allclose(logits(model, ids), logits(encoder, ids) + logits(ngrams, ids), atol=1e-5)


def test_without_ngrams_the_encoder_is_the_model():
    assert encoder_alone(build("lstm", wide=False)) is None


def test_the_encoder_learns_from_a_loss_of_its_own():
    model, ids = build("lstm"), token_ids(4)
    both = logits(learner_of(model), ids)
    np.testing.assert_allclose(both[:, 0], logits(model, ids), atol=1e-6)
    np.testing.assert_allclose(both[:, 1], logits(encoder_alone(model), ids), atol=1e-6)
    assert logits(learner_of(build("lstm", wide=False)), ids).shape == (4, 1, NUM_CLASSES)


def test_ngrams_step_as_far_as_in_a_linear_model_whatever_the_encoders_rate():
    layer = build("transformer", learning_rate=5e-4).get_layer("ngram_logits")
    assert layer.step_scale * 5e-4 == pytest.approx(LinearConfig().learning_rate)
