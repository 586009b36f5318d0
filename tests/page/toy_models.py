"""Small models for the page: two versions of a classifier, one of many classes, two that are no classifiers."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

MODELS = ["reviews", "topics", "shout", "numbers"]
TEXT = tf.TensorSpec([None], tf.string, name="text")
TOPICS = ["sport", "music", "<img src=x onerror=alert(1)>", "art", "food", "law", "health", "travel", "science"]


def classified(names: list[str], probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
    return {
        "label": tf.gather(tf.constant(names), tf.argmax(probabilities, axis=1)),
        "confidence": tf.reduce_max(probabilities, axis=1),
        "probabilities": probabilities,
        "classes": tf.broadcast_to(tf.constant(names), tf.shape(probabilities)),
    }


class Reviews(tf.Module):
    """Positive with one probability where the text has the word great, else with another one."""

    def __init__(self, with_great: float, without: float) -> None:
        super().__init__()
        self.with_great, self.without = with_great, without

    @tf.function(input_signature=[TEXT])
    def classify(self, text):
        has_great = tf.strings.regex_full_match(text, "(?s).*great.*")
        positive = tf.where(has_great, self.with_great, self.without)
        return classified(["negative", "positive"], tf.stack([1 - positive, positive], axis=1))

    @tf.function(input_signature=[TEXT])
    def text_statistics(self, text):
        words = tf.cast(tf.strings.split(text).row_lengths(), tf.int32)
        return {"num_tokens": words, "unknown_share": tf.zeros_like(words, tf.float32), "truncated": words > 8}


class Topics(tf.Module):
    @tf.function(input_signature=[TEXT])
    def classify(self, text):
        shares = tf.range(1.0, len(TOPICS) + 1) / 45
        return classified(TOPICS, tf.broadcast_to(shares, [tf.size(text), len(TOPICS)]))


class Shout(tf.Module):
    @tf.function(input_signature=[TEXT])
    def shout(self, text):
        return {"length": tf.strings.length(text), "upper": tf.strings.upper(text)}


class Numbers(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def double(self, x):
        return {"y": 2 * x}


def save_reviews(base: Path, version: int, with_great: float, without: float) -> None:
    reviews = Reviews(with_great, without)
    signatures = {"serving_default": reviews.classify, "text_statistics": reviews.text_statistics}
    tf.saved_model.save(reviews, str(base / f".{version}"), signatures=signatures)
    (base / f".{version}").rename(base / str(version))


def save_models(base: Path) -> None:
    save_reviews(base / "reviews", 1, 0.9, 0.2)
    save_reviews(base / "reviews", 2, 0.8, 0.6)
    topics, shout, numbers = Topics(), Shout(), Numbers()
    tf.saved_model.save(topics, str(base / "topics" / "1"), signatures=topics.classify)
    tf.saved_model.save(shout, str(base / "shout" / "7"), signatures=shout.shout)
    tf.saved_model.save(numbers, str(base / "numbers" / "1"), signatures=numbers.double)
