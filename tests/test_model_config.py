"""The model config file, read as TensorFlow Serving reads it."""

from pathlib import Path

import pytest

from app.errors import RequestError
from app.serving.model_config import ModelSettings, VersionPolicy, read_model_config


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.config"
    path.write_text(text)
    return path


def one_model(fields: str) -> str:
    return 'model_config_list { config { name: "toy" base_path: "/models/toy" ' + fields + " } }"


def test_models_policies_and_labels_are_read(tmp_path):
    path = written(
        tmp_path,
        """
        model_config_list {
          # the one everybody asks
          config {
            name: "reviews"
            base_path: "/models/reviews"
            model_platform: "tensorflow"
            model_version_policy { specific { versions: 3 versions: 7 } }
            version_labels { key: "stable" value: 3 }
            version_labels { key: "canary" value: 7 }
          }
          config { name: "other model", base_path: "/models/other", model_version_policy: { all: {} } }
        }
        """,
    )
    assert read_model_config(path) == [
        ModelSettings(
            "reviews",
            Path("/models/reviews"),
            VersionPolicy("specific", versions=(3, 7)),
            {"stable": 3, "canary": 7},
        ),
        ModelSettings("other model", Path("/models/other"), VersionPolicy("all"), {}),
    ]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", VersionPolicy("latest", 1)),
        ("model_version_policy {}", VersionPolicy("latest", 1)),
        ("model_version_policy { latest {} }", VersionPolicy("latest", 1)),
        ("model_version_policy { latest { num_versions: 3 } }", VersionPolicy("latest", 3)),
        ("model_version_policy { all {} }", VersionPolicy("all")),
        ("model_version_policy { specific { versions: [2, 1] } }", VersionPolicy("specific", versions=(2, 1))),
        ("model_type: TENSORFLOW", VersionPolicy("latest", 1)),
    ],
)
def test_what_is_left_out_means_the_latest_version(tmp_path, policy, expected):
    (model,) = read_model_config(written(tmp_path, one_model(policy)))
    assert model.version_policy == expected


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), [12]),
        (VersionPolicy("latest", 2), [12, 7]),
        (VersionPolicy("latest", 9), [12, 7, 3]),
        (VersionPolicy("all"), [12, 7, 3]),
        (VersionPolicy("specific", versions=(3, 12, 99)), [12, 3]),
    ],
)
def test_a_policy_chooses_among_the_versions_on_disk(policy, chosen):
    assert policy.choose({7, 3, 12}) == chosen


def test_a_relative_base_path_is_looked_for_beside_the_file(tmp_path, monkeypatch):
    (tmp_path / "deploy").mkdir()
    monkeypatch.chdir(tmp_path)
    text = 'model_config_list { config { name: "toy" base_path: "models/toy" } }'
    path = written(tmp_path / "deploy", text)
    for given in (path, Path("deploy/models.config")):
        (model,) = read_model_config(given)
        assert model.base_path == tmp_path / "deploy" / "models" / "toy"


def test_a_link_to_the_file_counts_where_it_stands(tmp_path):
    (tmp_path / "..data").mkdir()
    written(tmp_path / "..data", 'model_config_list { config { name: "toy" base_path: "toy" } }')
    link = tmp_path / "models.config"
    link.symlink_to(tmp_path / "..data" / "models.config")
    assert read_model_config(link)[0].base_path == tmp_path / "toy"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'model_config_list {\n  config { name: "a" path: "/b" }\n}',
            'line 2:22 : Message type "tensorflow.serving.ModelConfig" has no field named "path"',
        ),
        ("model_config_list {\n  config { name: 1 }\n}", "line 2:18"),
        ("model_config_list {", "line 1:19"),
        ("", "names no model"),
        ("model_config_list {}", "names no model"),
        ("custom_model_config {}", "custom_model_config is not supported; allowed is model_config_list"),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { base_path: "/b" } }',
            "model 2 of the list: name is ''",
        ),
        ('model_config_list { config { name: "a/b" base_path: "/a" } }', "name is 'a/b'"),
        ('model_config_list { config { name: "a" } }', "model 'a': base_path is ''"),
        ('model_config_list { config { name: "a" base_path: "gs://b/a" } }', "base_path is 'gs://b/a'"),
        (
            'model_config_list { config { name: "a" base_path: "/a" } config { name: "a" base_path: "/b" } }',
            "several models are named 'a'",
        ),
        (one_model('model_platform: "pytorch"'), "model_platform is 'pytorch'; allowed is 'tensorflow'"),
        (one_model("model_type: OTHER"), "model_type is OTHER"),
        (one_model("logging_config { sampling_config { sampling_rate: 1 } }"), "logging_config is not supported"),
        (one_model("model_version_policy { specific {} }"), "lists no versions"),
        (one_model("model_version_policy { specific { versions: -1 } }"), "versions has -1"),
        (one_model('version_labels { key: "stable" value: -3 }'), "version_labels has -3"),
        (one_model("model_version_policy { latest {} all {} }"), 'Field "all" is specified along with field "latest"'),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_reason(tmp_path, text, complaint):
    path = written(tmp_path, text)
    with pytest.raises(RequestError) as refused:
        read_model_config(path)
    assert complaint in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"cannot read .*none\.config"):
        read_model_config(tmp_path / "none.config")
    (tmp_path / "bytes.config").write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match=r"cannot read .*bytes\.config"):
        read_model_config(tmp_path / "bytes.config")
