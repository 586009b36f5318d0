"""The truncation ledger: sums by hand, and a signal that stands only where the model does not read."""

import json

import numpy as np
import pytest
from made_answers import made_answers

from app.analysis.tails import MIN_ROWS, cut, tail_signal
from app.analysis.truncation import truncation_ledger
from app.errors import RequestError

LENGTH = 21  # [CLS] and twenty pieces
CUES = ("superb", "dreadful")
FILLER = [f"word{number}" for number in range(60)]


def long_texts(count, cue_place, seed):
    """Texts of 40 words, one of them a cue of the label at a place: 5 is read, 30 is not; None for no cue."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 2, count)
    texts = []
    for label in labels:
        words = list(chance.choice(FILLER, 40))
        if cue_place is not None:
            words[cue_place] = CUES[label]
        texts.append(" ".join(words))
    return texts, labels


def ledger(cue_place, cut_accuracy, with_train=True):
    """A model that is right on 90% of the short texts and on `cut_accuracy` of the long ones."""
    texts, labels = long_texts(400, cue_place, seed=1)
    chance = np.random.default_rng(2)
    is_long = np.arange(400) % 2 == 0
    right = chance.random(400) < np.where(is_long, cut_accuracy, 0.9)
    shown = [text if long else " ".join(text.split()[:15]) for text, long in zip(texts, is_long, strict=True)]
    made = made_answers(
        right, texts=shown, label_ids=labels, num_tokens=np.where(is_long, 40, 15), sequence_length=LENGTH
    )
    train_texts, train_labels = long_texts(400, cue_place, seed=3)
    train = {"train_texts": train_texts, "train_label_ids": train_labels} if with_train else {}
    return truncation_ledger(made, **train)


def test_a_signal_after_the_cut_is_found():
    found = ledger(cue_place=30, cut_accuracy=0.5)
    assert found.is_worse_when_cut
    assert found.tail.predicts
    assert found.lost_part_adds
    assert found.tail.lost.value > 0.95
    assert found.tail.kept.value < 0.6
    assert found.hides_signal
    assert found.to_dict()["verdict"].startswith(
        "The cut hides signal: 50.0% of the texts are cut and 36.4% of all pieces"
    )


def test_a_signal_before_the_cut_raises_no_alarm():
    found = ledger(cue_place=5, cut_accuracy=0.9)
    assert not found.is_worse_when_cut
    assert not found.tail.predicts
    assert not found.lost_part_adds
    assert found.tail.kept.value > 0.95
    assert not found.hides_signal
    assert "what is lost tells little by itself" in found.to_dict()["verdict"]
    assert found.to_dict()["verdict"].endswith("no harm is shown.")


def test_long_texts_that_are_merely_harder_are_not_taken_for_a_hidden_signal():
    found = ledger(cue_place=5, cut_accuracy=0.6)
    assert found.is_worse_when_cut
    assert not found.hides_signal
    assert found.to_dict()["verdict"].endswith("perhaps because long texts are harder.")


def test_without_training_texts_it_says_what_is_not_known():
    found = ledger(cue_place=30, cut_accuracy=0.5, with_train=False)
    assert found.tail is None
    assert not found.hides_signal
    assert "may hide signal" in found.to_dict()["verdict"]
    assert "not known" in found.to_dict()["verdict"]
    assert "no harm is shown" in ledger(5, 0.9, with_train=False).to_dict()["verdict"]


def test_nothing_cut_is_nothing_lost():
    found = truncation_ledger(made_answers([1, 0, 1, 1]))
    assert found.total.share_cut.value == 0
    assert found.to_dict()["verdict"] == "No text has more than the 128 pieces that lstm reads: nothing is lost."
    assert found.to_dict()["accuracy_cut"]["value"] is None


def test_the_ledger_by_hand():
    # Twenty pieces are read of each: nothing, 10 and 20 are lost of 20, 30 and 40.
    made = made_answers([1, 0, 0, 1], label_ids=[0, 0, 1, 1], num_tokens=[20, 30, 40, 20], sequence_length=LENGTH)
    found = truncation_ledger(made, sequence_lengths=[11, 21, 31, 41])
    assert (found.total.share_cut.value, found.total.pieces_lost) == (0.5, 30 / 110)
    assert [(part.name, part.rows, part.share_cut.value, part.pieces_lost) for part in found.by_class] == [
        ("good", 2, 0.5, 10 / 50),
        ("bad", 2, 0.5, 20 / 60),
    ]
    assert (found.accuracy_cut.value, found.accuracy_uncut.value) == (0, 1)
    assert found.p_value == pytest.approx(1 / 6)
    assert [(part.name, part.rows, part.share_cut, part.accuracy.value) for part in found.by_length] == [
        ("20 pieces", 2, 0, 1),
        ("30 pieces", 1, 1, 0),
        ("40 pieces", 1, 1, 0),
    ]
    assert [(price.sequence_length, price.share_cut, price.pieces_lost) for price in found.prices] == [
        (11, 1, 70 / 110),
        (21, 0.5, 30 / 110),
        (31, 0.25, 10 / 110),
        (41, 0, 0),
    ]
    assert [price.linear for price in found.prices] == [44 / 84, 1, (21 + 31 + 31 + 21) / 84, (21 + 31 + 41 + 21) / 84]
    assert found.prices[3].quadratic == pytest.approx((2 * 21**2 + 31**2 + 41**2) / (4 * 21**2))


def test_priced_by_default_are_multiples_up_to_the_length_that_cuts_nothing():
    made = made_answers([1] * 3, num_tokens=[5, 50, 300], sequence_length=100)
    found = truncation_ledger(made)
    assert [price.sequence_length for price in found.prices] == [50, 100, 150, 200, 301]
    assert (found.prices[1].linear, found.prices[1].quadratic) == (1, 1)
    assert found.prices[-1].share_cut == 0


def test_a_text_is_cut_where_its_pieces_end():
    text = "one two six ten run sun fun pun"
    assert cut(text, 8, 5) == ("one two six ten ", "run sun fun pun")
    assert cut(text, 9, 5) == ("one two six ten", " run sun fun pun")  # within "ten", which counts as kept
    assert cut(text, 8, 9) == (text, "")
    kept, lost = cut("一二三四五六七八", 8, 5)
    assert (kept, lost) == ("一二三四", "五六七八")


def test_head_and_tail_lose_the_middle():
    text = " ".join(f"w{number:02d}" for number in range(100))
    kept, lost = cut(text, 100, 21, "head+tail")
    assert kept.split() == [f"w{number:02d}" for number in (*range(5), *range(85, 100))]
    assert lost.split() == [f"w{number:02d}" for number in range(5, 85)]


def test_a_handful_of_cut_texts_says_nothing():
    texts, labels = long_texts(MIN_ROWS, 30, seed=0)
    pieces = np.full(MIN_ROWS, 40)
    assert tail_signal(texts, labels, pieces, LENGTH) is not None
    assert tail_signal(texts[1:], labels[1:], pieces[1:], LENGTH) is None
    assert tail_signal(texts, np.zeros(MIN_ROWS, int), pieces, LENGTH) is None


def test_training_texts_have_to_fit_their_labels():
    with pytest.raises(RequestError, match="2 texts, 1 label_ids and 2 num_tokens"):
        tail_signal(["a", "b"], [0], [1, 2], LENGTH)


def test_it_is_json():
    for found in (ledger(30, 0.5), truncation_ledger(made_answers([1, 0]))):
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()
