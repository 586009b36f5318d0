"""The running average of the weights: worked by hand, and where it stands while a model is fitted."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from app.averaging import UPDATES, WeightAverage


class StepByOne(keras.callbacks.Callback):
    """Sets the only weight to the number of the step, and writes down what others see."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.seen: list[tuple[str, float]] = []

    def weight(self) -> float:
        return float(self.model.trainable_variables[0].numpy()[0, 0])

    def on_train_batch_begin(self, batch, logs=None):
        self.step += 1
        self.model.trainable_variables[0].assign([[float(self.step)]])

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(("step", self.weight()))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(("epoch", self.weight()))


def fit(steps: float, epochs: int) -> StepByOne:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    watcher = StepByOne()
    rows = np.zeros((3, 1), "float32")
    model.fit(
        rows,
        rows,
        batch_size=1,
        epochs=epochs,
        validation_data=(rows, rows),
        callbacks=[watcher, WeightAverage(steps), Late(watcher)],
        shuffle=False,
        verbose=0,
    )
    return watcher


class Late(keras.callbacks.Callback):
    """What a callback after the average sees at an epoch's end."""

    def __init__(self, watcher: StepByOne) -> None:
        super().__init__()
        self.watcher = watcher

    def on_epoch_end(self, epoch, logs=None):
        self.watcher.seen.append(("kept", self.watcher.weight()))


def test_the_average_is_kept_and_training_goes_on_from_the_weights_themselves():
    # Over 2 steps: average = average / 2 + weight / 2. After 1, 2, 3: 0.5, 1.25, 2.125; after 4, 5, 6: 3.0625, ...
    seen = fit(steps=2, epochs=2).seen
    assert [value for what, value in seen if what == "step"] == [1, 2, 3, 4, 5, 6]
    assert [value for what, value in seen if what == "kept"] == [2.125, pytest.approx(5.015625)]


@pytest.mark.parametrize("steps", [0.0, 0.4, 1.0])
def test_an_average_over_less_than_a_step_is_the_weight(steps):
    assert [value for what, value in fit(steps, epochs=1).seen if what == "kept"] == [3.0]


def test_a_long_average_is_moved_every_few_steps_and_reaches_as_far():
    average = WeightAverage(steps=UPDATES * 10)
    assert average._every == 10
    assert average._keep == pytest.approx(1 - 1 / UPDATES)
