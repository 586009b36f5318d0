"""TensorFlow Serving's text configuration files, read as it reads them."""

from pathlib import Path

import pytest

from app.errors import RequestError
from app.serving.text_protos import (
    BatchingParameters,
    read_batching_parameters,
    read_monitoring_config,
    read_ssl_config,
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.txt"
    path.write_text(text)
    return path


def test_batching_parameters_are_read_from_wrapped_values(tmp_path):
    path = written(
        tmp_path,
        """
        # the first row waits at most a millisecond
        max_batch_size { value: 32 }
        batch_timeout_micros { value: 1000 }
        num_batch_threads { value: 2 }
        max_enqueued_batches { value: 100 }
        allowed_batch_sizes: 8
        allowed_batch_sizes: 32
        """,
    )
    assert read_batching_parameters(path) == BatchingParameters(32, 1000, 100, 2, (8, 32))


def test_what_is_left_out_has_the_default_of_tensorflow_serving(tmp_path):
    assert read_batching_parameters(written(tmp_path, "")) == BatchingParameters(1000, 0, 10, 4, ())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("max_batch_size { value: 0 }", "max_batch_size is 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros is -1"),
        ("max_batch_size { value: 32 } allowed_batch_sizes: 8", "the last of allowed_batch_sizes is 8"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [8, 8]", "have to be positive and to rise"),
        ("pad_variable_length_inputs: true", "pad_variable_length_inputs is not supported"),
        ("max_batch: 3", 'line 1:1 : Message type "valence.serving.BatchingParameters" has no field named "max_batch"'),
    ],
)
def test_a_wrong_batching_file_is_refused_with_the_reason(tmp_path, text, complaint):
    with pytest.raises(RequestError) as refused:
        read_batching_parameters(written(tmp_path, text))
    assert complaint in str(refused.value)
    assert "config.txt" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('prometheus_config { enable: true, path: "/metrics" }', "/metrics"),
        ("prometheus_config { enable: true }", "/monitoring/prometheus/metrics"),
        ("prometheus_config { enable: false }", None),
        ("", None),
    ],
)
def test_the_monitoring_file_gives_the_path_of_the_metrics(tmp_path, text, path):
    assert read_monitoring_config(written(tmp_path, text)) == path


def test_a_metrics_path_without_a_slash_is_refused(tmp_path):
    with pytest.raises(RequestError, match="has to start with '/'"):
        read_monitoring_config(written(tmp_path, 'prometheus_config { enable: true path: "metrics" }'))


def test_ssl_config_needs_key_and_certificate(tmp_path):
    with pytest.raises(RequestError, match="server_cert is missing"):
        read_ssl_config(written(tmp_path, 'server_key: "-----BEGIN"'))


def test_verifying_clients_needs_their_authority(tmp_path):
    with pytest.raises(RequestError, match="client_verify needs custom_ca"):
        read_ssl_config(written(tmp_path, 'server_key: "k" server_cert: "c" client_verify: true'))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"none\.txt"):
        read_ssl_config(tmp_path / "none.txt")


@pytest.mark.parametrize("path", ["/", "/v1/metrics", "/healthz/metrics", "/page/models", "/a%20b"])
def test_metrics_do_not_take_the_place_of_what_answers_elsewhere(tmp_path, path):
    with pytest.raises(RequestError, match="where something else answers"):
        read_monitoring_config(written(tmp_path, f'prometheus_config {{ enable: true path: "{path}" }}'))
