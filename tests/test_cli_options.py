"""What a command was called with, written as settings."""

from __future__ import annotations

from pathlib import Path

from app.cli_options import as_overrides
from app.config import resolve_config


def test_options_come_after_set_so_that_they_win():
    overrides = as_overrides({"settings": ["seed=5", "fit.patience=4"], "seed": 7})
    config = resolve_config("linear", {}, overrides, {})
    assert (config.seed, config.fit.patience) == (7, 4)


def test_a_zero_is_given_and_what_is_not_given_is_left_to_the_file():
    assert as_overrides({"settings": None, "seed": 0, "seeds": None, "deterministic": False, "init": []}) == ["seed=0"]


def test_paths_lists_and_quotes_survive():
    given = {"archive": Path('a "b"/c.tar.gz'), "slice_column": ["city", "año"], "deterministic": True, "gates": "x"}
    config = resolve_config("linear", {}, as_overrides({**given, "data": "imdb"}), {})
    assert str(config.data.archive) == 'a "b"/c.tar.gz'
    assert config.data.slice_columns == ("city", "año")
    assert config.deterministic
