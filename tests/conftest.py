"""What every test file may use: a tiny data set, and one trained experiment that many look at."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

GOOD = ["great", "superb", "moving", "funny", "clever"]
BAD = ["dull", "awful", "tedious", "clumsy", "lifeless"]
NOUNS = ["film", "story", "cast", "ending", "script"]


def write_reviews(path: Path, rows: int = 240, seed: int = 0) -> Path:
    """Write a CSV of made-up reviews with the columns review, stars and film; the adjective decides the stars."""
    chance = random.Random(seed)
    lines = ["review,stars,film"]
    for row in range(rows):
        stars = row % 2
        adjectives = GOOD if stars else BAD
        noun, other = chance.sample(NOUNS, 2)
        text = f"The {noun} is {chance.choice(adjectives)} and the {other} is {chance.choice(adjectives)} no {row}"
        lines.append(f"{text},{stars},film {row // 4}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CSV file of two classes that any model learns in seconds."""
    return write_reviews(tmp_path_factory.mktemp("reviews") / "reviews.csv")
