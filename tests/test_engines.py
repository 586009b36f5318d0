"""Which program serves, and how it is called.

Neither tensorflow_model_server nor docker runs where the tests run: small scripts of the same names stand in
for them on the PATH and write down the arguments they were really called with.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli import main
from app.errors import RequestError
from app.serving.engines import ENGINES, IMAGE, plan

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    base = tmp_path / "my models" / "reviews"
    (base / "4").mkdir(parents=True)
    (base / "4" / "saved_model.pb").write_bytes(b"")
    return base


def install(programs: Path, name: str, *, exit_code: int = 0, seconds: int = 0) -> Path:
    """A stand-in that writes its arguments, a line each, beside itself."""
    script = programs / name
    called_with = programs / f"{name}.called-with"
    script.write_text(
        f"#!/bin/sh\nfor argument; do echo \"$argument\"; done > '{called_with}'\n"
        f"[ {seconds} = 0 ] || exec /bin/sleep {seconds}\nexit {exit_code}\n"
    )
    script.chmod(0o755)
    return called_with


def launch(engine: str, base_path: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """What `serve.py` does with an engine that is a program of its own, in a process that it can become."""
    call = f"plan({engine!r}, model=('reviews', Path({str(base_path)!r})), **{options!r})"
    program = f"from pathlib import Path; from app.serving.engines import launch, plan; launch({call})"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def test_tensorflow_model_server_is_called_with_its_own_flags(programs, base_path):
    called_with = install(programs, "tensorflow_model_server", exit_code=7)
    process = launch("tensorflow-serving", base_path, port=9001)
    assert process.returncode == 7  # the exit code is the program's: it took this process's place
    assert called_with.read_text().splitlines() == [
        "--port=0",
        "--rest_api_port=9001",
        "--model_name=reviews",
        f"--model_base_path={base_path}",
    ]


@pytest.mark.parametrize("gpu", [False, True])
def test_docker_runs_the_image_on_loopback_with_the_models_read_only(programs, base_path, gpu):
    called_with = install(programs, "docker")
    assert launch("docker", base_path, port=9001, gpu=gpu).returncode == 0
    assert called_with.read_text().splitlines() == [
        *("run", "--rm"),
        *(("--gpus", "all") if gpu else ()),
        *("--publish", "127.0.0.1:9001:8501"),
        *("--mount", f"type=bind,source={base_path},target=/models/reviews,readonly"),
        *("--env", "MODEL_NAME=reviews"),
        f"{IMAGE}-gpu" if gpu else IMAGE,
    ]


def test_docker_mounts_a_single_version_as_that_version(base_path):
    command = plan("docker", model=("reviews", base_path / "4"))
    assert f"type=bind,source={base_path / '4'},target=/models/reviews/4,readonly" in command.argv


def test_the_embedded_engine_shows_the_line_to_type(base_path):
    command = plan("embedded", model=("reviews", base_path), port=9001)
    assert str(command) == (
        f"python serve.py --engine=embedded '--model_base_path={base_path}' --model_name=reviews"
        " --host=127.0.0.1 --rest_api_port=9001"
    )


def test_planning_starts_nothing_and_needs_nothing_installed(programs, base_path):
    for engine in ENGINES:
        assert plan(engine, model=("reviews", base_path)).argv
    assert list(programs.iterdir()) == []


def test_auto_takes_tensorflow_model_server_first(programs, base_path):
    install(programs, "tensorflow_model_server")
    docker_called_with = install(programs, "docker")
    command = plan("auto", model=("reviews", base_path))
    assert command.engine == "tensorflow-serving"
    assert "tensorflow_model_server is on the PATH" in command.why
    assert not docker_called_with.exists()


def test_auto_takes_docker_where_it_has_the_image(programs, base_path):
    called_with = install(programs, "docker")
    command = plan("auto", model=("reviews", base_path))
    assert (command.engine, called_with.read_text()) == ("docker", f"image\ninspect\n{IMAGE}\n")
    assert f"docker has {IMAGE}" in command.why


@pytest.mark.parametrize("trouble", [{}, {"exit_code": 1}, {"seconds": 60}])
def test_auto_stays_embedded_without_docker_or_its_image(programs, base_path, trouble):
    if trouble:
        install(programs, "docker", **trouble)
    command = plan("auto", model=("reviews", base_path))
    assert command.engine == "embedded"
    assert "tensorflow_model_server is not on the PATH, and no docker daemon has" in command.why


def test_auto_does_not_give_a_single_version_to_tensorflow_model_server(programs, base_path):
    install(programs, "tensorflow_model_server")
    assert plan("auto", model=("reviews", base_path / "4")).engine == "embedded"
    with pytest.raises(RequestError, match=f"4 is one version: .* give {base_path}"):
        plan("tensorflow-serving", model=("reviews", base_path / "4"))


def test_an_unknown_engine_is_refused_with_those_allowed(base_path):
    with pytest.raises(RequestError, match="unknown engine 'gpu': allowed are auto, embedded"):
        plan("gpu", model=("reviews", base_path))


@pytest.mark.parametrize(
    ("engine", "program"), [("tensorflow-serving", "tensorflow_model_server"), ("docker", "docker")]
)
def test_a_program_that_is_missing_is_named(programs, base_path, engine, program):
    process = launch(engine, base_path)
    assert process.returncode == 1
    assert f"RequestError: {program} is not on the PATH" in process.stderr


def test_flags_of_tensorflow_serving_are_handed_on(programs, base_path):
    called_with = install(programs, "tensorflow_model_server")
    flags = {"enable_batching": "true", "batching_parameters_file": "/etc/batching.txt", "port": "8500"}
    launch("tensorflow-serving", base_path, flags=flags)
    assert called_with.read_text().splitlines() == [
        "--rest_api_port=8501",
        "--model_name=reviews",
        f"--model_base_path={base_path}",
        "--enable_batching=true",
        "--batching_parameters_file=/etc/batching.txt",
        "--port=8500",
    ]


def test_several_models_come_from_their_file(programs):
    flags = {"model_config_file": "models.config"}
    assert plan("tensorflow-serving", model=None, flags=flags).argv == (
        "tensorflow_model_server",
        "--port=0",
        "--rest_api_port=8501",
        "--model_config_file=models.config",
    )


def test_docker_publishes_the_grpc_port_where_one_is_asked_for(base_path):
    command = plan("docker", model=("reviews", base_path), flags={"port": "9000", "enable_batching": "true"})
    assert "127.0.0.1:9000:8500" in command.argv
    assert command.argv[-1] == "--enable_batching=true"


def test_docker_is_not_given_a_file_that_it_cannot_see(base_path):
    with pytest.raises(RequestError, match="--batching_parameters_file: a container does not see the file"):
        plan("docker", model=("reviews", base_path), flags={"batching_parameters_file": "b.txt"})


@pytest.mark.parametrize("engine", ["tensorflow-serving", "docker"])
def test_no_engine_drops_an_option_in_silence(base_path, engine):
    with pytest.raises(RequestError, match="--token_file: only the embedded server has it"):
        plan(engine, model=("reviews", base_path), own_options={"token_file": "tokens"})


def test_auto_stays_embedded_for_what_only_the_embedded_server_has(programs, base_path):
    install(programs, "tensorflow_model_server")
    command = plan("auto", model=("reviews", base_path), own_options={"token_file": "tokens"})
    assert (command.engine, command.argv[-1]) == ("embedded", "--token_file=tokens")


def test_the_gpu_image_is_docker_s_alone(base_path):
    with pytest.raises(RequestError, match="--gpu picks docker's GPU image"):
        plan("embedded", model=("reviews", base_path), gpu=True)


def test_a_token_in_the_environment_keeps_other_engines_out(programs, base_path, monkeypatch):
    install(programs, "tensorflow_model_server")
    monkeypatch.setenv("VALENCE_TOKEN", "0123456789abcdef")
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--engine", "tensorflow-serving", "--model_base_path", str(base_path), "--dry-run"])
    assert ended.value.code == 2
