"""Configuration: what wins over what, what is refused and how the refusal reads, and the way back in."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.config import FitConfig, RunConfig, read_toml, resolve_config, resolve_configs
from app.errors import RequestError
from models import DEFAULT_MODELS, MODELS


def toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def resolve(*overrides: str, model: str = "lstm", file: str = "", data: dict[str, Any] | None = None) -> RunConfig:
    return resolve_config(model, toml(file), overrides, data)


def refusal(*overrides: str, model: str = "lstm", file: str = "", data: dict[str, Any] | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        resolve(*overrides, model=model, file=file, data=data)
    return str(caught.value)


# What wins over what


@pytest.mark.parametrize("name", list(MODELS))
def test_without_anything_said_every_model_has_its_defaults(name):
    config = resolve(model=name)
    assert config.model_name == name
    assert config.model == MODELS[name].config()
    assert config.fit == FitConfig()
    assert (config.seed, config.deterministic) == (0, False)
    assert config.data.source == "rotten-tomatoes"


def test_a_file_wins_over_the_defaults():
    config = resolve(file="seed = 7\n[model]\nhidden_dim = 32\n[fit]\nclass_weights = 'balanced'")
    assert (config.seed, config.model.hidden_dim, config.fit.class_weights) == (7, 32, "balanced")
    assert config.model.embedding_dim == MODELS["lstm"].config().embedding_dim


def test_options_for_the_data_win_over_the_file_and_leave_the_rest_of_it():
    file = "[data]\nsource = 'a.csv'\ntext_column = 'review'"
    config = resolve(file=file, data={"source": "b.csv"})
    assert (config.data.source, config.data.text_column) == ("b.csv", "review")


def test_set_wins_over_everything_and_the_last_one_counts():
    file = "seed = 1\n[data]\nsource = 'a.csv'"
    config = resolve("seed=2", "data.source=c.csv", "seed=3", file=file, data={"source": "b.csv"})
    assert (config.seed, config.data.source) == (3, "c.csv")


def test_a_file_is_not_changed_by_what_is_set_on_top():
    file = toml("[model]\nhidden_dim = 32")
    resolve_config("lstm", file, ["model.hidden_dim=64", "model.epochs=1"], {"source": "b.csv"})
    assert file == {"model": {"hidden_dim": 32}}


# The way a value is written


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("fit.class_weights=balanced", "fit", "class_weights", "balanced"),
        ("fit.class_weights='balanced'", "fit", "class_weights", "balanced"),
        ('fit.class_weights="balanced"', "fit", "class_weights", "balanced"),
        ("pipeline.truncation=head+tail", "pipeline", "truncation", "head+tail"),
        ("data.source=my reviews.csv", "data", "source", "my reviews.csv"),
        ("data.source=a=b.csv", "data", "source", "a=b.csv"),
        ("data.text_column='2024'", "data", "text_column", "2024"),
        ("data.source=C:\\reviews.csv", "data", "source", "C:\\reviews.csv"),
        (" model.learning_rate = 1e-4 ", "model", "learning_rate", 1e-4),
        ("vocabulary.size=10_000", "vocabulary", "size", 10_000),
        ("model.bidirectional=false", "model", "bidirectional", False),
        ("model.use_cudnn=auto", "model", "use_cudnn", "auto"),
    ],
)
def test_values_are_written_as_in_toml_and_bare_words_are_strings(override, section, key, value):
    given = getattr(getattr(resolve(override), section), key)
    assert given == value
    assert type(given) is type(value)


def test_settings_outside_a_section_can_be_set():
    config = resolve("seed=5", "deterministic=true")
    assert (config.seed, config.deterministic) == (5, True)


@pytest.mark.parametrize("override", ["seed", "=3", "model.=3", ".seed=3", "model.lstm.hidden_dim=3", ""])
def test_what_is_not_an_assignment_is_refused_with_an_example(override):
    message = refusal(override)
    assert message.startswith(f"--set {override}: write section.key=value, for example --set model.learning_rate=")


def test_a_value_that_is_no_section_takes_no_key():
    assert refusal("seed.first=1", file="seed = 3") == "--set seed.first=1: seed is one value and has no first"


# Names that are not known


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.hiden_dim=3",
            "unknown setting model.hiden_dim for lstm. Known: bidirectional, embedding_dim, embedding_dropout, epochs, "
            "hidden_dim, learning_rate, output_dropout, piece_dropout, stem_kernel, stem_pooling, use_cudnn, "
            "weight_decay, wide, wide_buckets, wide_epochs, wide_ngrams. "
            "Did you mean hidden_dim?",
        ),
        (
            "vocabulary.sise=3",
            "unknown setting vocabulary.sise. Known: min_frequency, size. Did you mean size?",
        ),
        (
            "pipelin.batch_size=3",
            "unknown setting pipelin. Known: calibration, data, deterministic, fit, init, model, model_name, pipeline, "
            "seed, seeds, tuning_budget_minutes, vocabulary. "
            "Did you mean pipeline?",
        ),
        (
            "vocabulary.zzz=3",
            "unknown setting vocabulary.zzz. Known: min_frequency, size.",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_those_known_and_the_closest(override, message):
    assert refusal(override) == message


def test_an_unknown_setting_in_a_file_is_refused_alike():
    assert "unknown setting fit.patienc. Known: " in refusal(file="[fit]\npatienc = 3")
    assert "Did you mean patience?" in refusal(file="[fit]\npatienc = 3")


def test_a_setting_of_another_model_is_unknown():
    assert refusal("model.num_heads=2").startswith("unknown setting model.num_heads for lstm. Known: ")


def test_all_that_is_wrong_is_said_one_line_each():
    lines = refusal("fit.patience=0", "fit.clip=1", "seed=-1").splitlines()
    assert len(lines) == 3
    assert [next(word for word in line.split() if "." in word or word == "seed") for line in lines] == [
        "seed",
        "fit.patience",
        "fit.clip.",
    ]


def test_an_unknown_model_is_refused_with_the_closest():
    expected = f"unknown model 'transfomer'. Known: {', '.join(MODELS)}. Did you mean transformer?"
    assert refusal(model="transfomer") == expected


# Values that are not allowed


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("seed=-1", ["seed = -1", "0"]),
        (f"seed={2**31}", [f"seed = {2**31}", f"less than {2**31}"]),
        ("seed=many", ["seed = 'many'", "integer"]),
        ("model.hidden_dim=0", ["model.hidden_dim = 0", "greater than 0"]),
        ("model.epochs=2.5", ["model.epochs = 2.5", "integer"]),
        ("model.learning_rate=nan", ["model.learning_rate = nan"]),
        ("fit.class_weights=equal", ["fit.class_weights = 'equal'", "'none' or 'balanced'"]),
        ("fit.label_smoothing=1", ["fit.label_smoothing = 1", "less than 1"]),
        ("fit.warmup_fraction=1.1", ["fit.warmup_fraction = 1.1", "1"]),
        ("fit.clip_norm=inf", ["fit.clip_norm = inf", "finite"]),
        ("model.weight_decay=inf", ["model.weight_decay = inf", "finite"]),
        ("pipeline.sequence_length=3", ["pipeline.sequence_length = 3", "4"]),
        ("pipeline.truncation=tail", ["pipeline.truncation = 'tail'", "'head' or 'head+tail'"]),
        ("vocabulary.size=10", ["vocabulary.size = 10", "100"]),
        ("fit=3", ["fit = 3", "dictionary"]),
        ("model=3", ["model = 3", "dictionary"]),
        ("data=3", ["data = 3", "dictionary"]),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(override, parts):
    message = refusal(override)
    assert "\n" not in message
    assert message.startswith(parts[0] + ": ")
    assert all(part in message for part in parts)


def test_a_file_whose_data_section_is_no_section_is_refused():
    assert refusal(file="data = 'reviews.csv'", data={"source": "b.csv"}).startswith("data = 'reviews.csv': ")


def test_values_that_do_not_go_together_are_refused_with_the_reason_alone():
    assert refusal("model.num_heads=3", model="transformer") == (
        "model: num_heads must divide embedding_dim (128), and 3 does not"
    )
    assert "each width stands once" in refusal("model.widths=[3, 3]", model="cnn")
    assert refusal("data.test_fraction=0.95") == (
        "data: validation_fraction and test_fraction together must be below 1"
    )


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_seeds_reach_from_0_to_the_largest_32_bit_integer(seed):
    assert resolve(f"seed={seed}").seed == seed


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        resolve().seed = 3


# Which models


def test_no_name_at_all_means_the_three_that_train_by_default():
    assert [config.model_name for config in resolve_configs([], {}, [], {})] == list(DEFAULT_MODELS)


def test_models_keep_the_order_in_which_they_are_named():
    names = ["transformer", "linear"]
    assert [config.model_name for config in resolve_configs(names, {}, ["seed=4"], {})] == names


def test_a_file_names_the_model_when_nobody_else_does():
    file = toml("model_name = 'lstm'\n[model]\nhidden_dim = 8")
    for names in ([], ["lstm"]):
        (config,) = resolve_configs(names, file, [], {})
        assert (config.model_name, config.model.hidden_dim) == ("lstm", 8)


@pytest.mark.parametrize("names", [["linear"], ["lstm", "linear"]])
def test_a_file_of_another_model_is_refused(names):
    with pytest.raises(RequestError, match=r"the configuration is of lstm, not of .*linear"):
        resolve_configs(names, toml("model_name = 'lstm'"), [], {})


def test_a_model_named_twice_is_refused():
    with pytest.raises(RequestError, match=r"^lstm is named more than once$"):
        resolve_configs(["lstm", "linear", "lstm"], {}, [], {})


@pytest.mark.parametrize("written", ["'lstn'", "3", "['lstm']", "''"])
def test_a_file_of_an_unknown_model_is_refused(written):
    with pytest.raises(RequestError, match=rf"^unknown model .*\. Known: {', '.join(MODELS)}\."):
        resolve_configs([], toml(f"model_name = {written}"), [], {})


def test_the_model_cannot_be_set_to_another_than_the_one_named():
    assert refusal("model_name=linear").startswith("model_name = 'linear': this run is of lstm.")


# The way back in

CHANGED = {
    "linear": ["model.ngrams=3", "fit.class_weights=balanced"],
    "lstm": ["model.use_cudnn=false", "model.bidirectional=false", "data.text_column='a \"b\" \\u2028 ü'"],
    "cnn": ["model.widths=[1, 7]"],
    "transformer": ["model.positions=sinusoidal", "model.weight_decay=1e-7", "data.archive=some/folder"],
}


@pytest.mark.parametrize("name", list(MODELS))
def test_what_is_written_resolves_to_the_equal_configuration(name, tmp_path):
    overrides = [*CHANGED.get(name, []), "seed=11", "deterministic=true", "model.learning_rate=0.1234567890123"]
    config = resolve(*overrides, model=name, data={"source": "reviews.csv", "validation": Path("v.csv")})
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert resolve_configs([], read_toml(path), [], {}) == [config]


def test_flat_names_every_setting_as_set_does():
    flat = resolve("model.hidden_dim=32", data={"source": "reviews.csv"}).flat()
    assert (flat["model.hidden_dim"], flat["data.source"], flat["model_name"], flat["seed"]) == (
        32,
        "reviews.csv",
        "lstm",
        0,
    )
    assert not any(isinstance(value, dict) for value in flat.values())


# Reading the file


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(RequestError, match=f"^no configuration file {tmp_path / 'none.toml'}$"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe", b"seed = 1\nseed = 2", b"{}"])
def test_a_file_that_is_not_toml_is_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=f"^{path}: not a TOML file"):
        read_toml(path)


def test_a_folder_is_not_a_configuration(tmp_path):
    with pytest.raises(RequestError, match=f"^{tmp_path}: not a TOML file"):
        read_toml(tmp_path)
