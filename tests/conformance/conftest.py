"""Which server the contract is asked of: our own with the flags that it needs, or the one that is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conformance.servers import Server, started
from conformance.toy_models import write_models

URL = "VALENCE_CONFORMANCE_URL"
LIMITED_URL = "VALENCE_CONFORMANCE_LIMITED_URL"
GRPC = "VALENCE_CONFORMANCE_GRPC"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "see tests/conformance/README.md")
    group.addoption("--server-url", help=f"ask the server at this URL ({URL})")
    group.addoption("--limited-server-url", help=f"the one with batching and a deadline ({LIMITED_URL})")
    group.addoption("--server-grpc", help=f"host:port of the server's gRPC ({GRPC})")


def given(config: pytest.Config, option: str, variable: str) -> str | None:
    """What was said on the command line or in the environment."""
    return config.getoption(option, None) or os.environ.get(variable)


@pytest.fixture(scope="session")
def conformance_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conformance")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest):
    """The server of README.md, part 1."""
    url = given(request.config, "server_url", URL)
    if url:
        yield Server(url, given(request.config, "server_grpc", GRPC) or "")
        return
    models = request.getfixturevalue("conformance_models")
    with started(models, models / "server.log", f"--monitoring_config_file={models / 'monitoring.config'}") as ours:
        yield ours


# Not for the session: TensorFlow's batching threads look for work all the time, a twentieth of a processor.
@pytest.fixture(scope="module")
def limited_server(request: pytest.FixtureRequest):
    """The server of README.md, part 2: batches of at most eight rows, and two seconds for a request."""
    url = given(request.config, "limited_server_url", LIMITED_URL)
    if url:
        yield Server(url)
        return
    if given(request.config, "server_url", URL):
        pytest.skip("needs a server with batching and a deadline: --limited-server-url")
    models = request.getfixturevalue("conformance_models")
    flags = ("--enable_batching", f"--batching_parameters_file={models / 'batching.config'}")
    with started(models, models / "limited.log", *flags, "--rest_api_timeout_in_ms=2000") as ours:
        yield ours
