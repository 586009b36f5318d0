"""The command line: what it answers, with which exit code, and on which stream."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests

import app
from app.cli import main
from data.sources import SOURCES, RawRows
from data.sources.rotten_tomatoes import load_rotten_tomatoes

PROJECT = Path(app.__file__).parents[1]
SETTINGS = [
    *("--set", "vocabulary.size=200"),
    *("--set", "pipeline.sequence_length=24"),
    *("--set", "model.num_buckets=1024"),
    *("--set", "model.epochs=2"),
]


def valence(*arguments: object) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def start(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    """Run the command line as a process of its own."""
    command = [sys.executable, *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.Popen(  # in a session of its own, to be ended with its children
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_help_imports_nothing_heavy():
    # Why --help answers at once: none of what takes seconds is loaded for it.
    script = (
        "import sys\nfrom app.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'pandas', 'sklearn', 'matplotlib', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    for command in ([], ["train"], ["serve"], ["predict"], ["verify"], ["ui"], ["demo"], ["promote"]):
        ended = subprocess.run(
            [sys.executable, "-c", script, *command, "--help"], capture_output=True, text=True, cwd=PROJECT
        )
        assert "Usage: valence" in ended.stdout
        assert ended.stderr.strip() == "[]", command


def test_version_is_the_package_s(capsys):
    assert valence("--version") == 0
    assert capsys.readouterr().out == f"valence {app.__version__}\n"


def test_the_three_ways_in_are_one_command_line():
    for way in (["train.py", "--help"], ["serve.py", "--help"], ["-m", "app", "--help"]):
        ended = subprocess.run([sys.executable, *way], capture_output=True, text=True, cwd=PROJECT)
        assert ended.returncode == 0
        assert ended.stdout.lstrip().startswith("Usage: valence")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["train", "lstmm"],
            "unknown model 'lstmm'. Known: linear, lstm, transformer, cnn, gru, performer, fnet. Did you mean lstm?",
        ),
        pytest.param(["train", "lstm", "lstm"], "lstm is named more than once"),
        pytest.param(
            ["train", "lstm", "--set", "model.hiden_dim=3"],
            "unknown setting model.hiden_dim for lstm. Known: bidirectional,",
        ),
        pytest.param(["train", "lstm", "--set", "model.hidden_dim=many"], "model.hidden_dim = 'many'"),
        pytest.param(["train", "linear", "--class-weights", "sqrt"], "fit.class_weights = 'sqrt'"),
        pytest.param(["train", "linear", "--config", "absent.toml"], "no configuration file absent.toml"),
        pytest.param(["train", "linear", "--data", "absent.csv"], "absent.csv"),
        pytest.param(
            ["train", "linear", "--data", "{reviews}"],
            "has no column 'text'. It has: review, stars, film. Did you mean --text-column review?",
        ),
        pytest.param(["verify", "{folder}"], "holds no saved_model.pb"),
        pytest.param(["serve", "--dry-run"], "train first: python train.py lstm transformer"),
        pytest.param(["serve", "--model_base_path", "absent"], "absent is no folder"),
        pytest.param(["predict", "a text"], "train first"),
        pytest.param(["predict", "a text", "--file", "reviews.csv"], "give texts or --file, not both"),
        pytest.param(["predict", "--file", "reviews.csv"], "--file and --output go together"),
        pytest.param(["ui"], "no runs yet"),
        pytest.param(["promote"], "name the run to promote"),
        pytest.param(["promote", "--rollback", "--gates", "gates.toml"], "--gates means nothing for it"),
        pytest.param(["promote", "abc", "--gates", "absent.toml"], "no file of gates absent.toml"),
        pytest.param(["promote", "abc"], "'abc' names no run"),
        pytest.param(["promote", "--rollback"], "no model has a previous version to go back to"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_code_2(arguments, message, reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = valence(*(argument.format(reviews=reviews, folder=tmp_path) for argument in arguments))
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "artifacts" / "exports").exists()


@pytest.fixture(scope="module")
def trained(reviews, tmp_path_factory):
    """`train.py linear --json` in a folder of its own, as a process of its own: (folder, stdout, stderr)."""
    folder = tmp_path_factory.mktemp("trained")
    columns = ["--text-column", "review", "--label-column", "stars", "--group-column", "film"]
    process = start(PROJECT / "train.py", "linear", "--data", reviews, *columns, *SETTINGS, "--json", folder=folder)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return folder, out, err


def test_json_alone_is_on_standard_output(trained):
    _, out, err = trained
    content = json.loads(out)
    assert content["best"] == "linear"
    assert content["runs"][0]["evaluation"]["metrics"]["accuracy"]["value"] >= 0.9
    assert "1 Data" in err
    assert "Next" in err


def test_nothing_of_tensorflow_s_start_up_is_shown_and_no_control_characters(trained):
    _, _, err = trained
    assert "\x1b" not in err
    for noise in ("oneDNN", "cuda", "absl", "Warning", "registered model"):
        assert noise not in err


@pytest.mark.slow
def test_a_run_s_configuration_can_be_fed_back(trained, reviews, capsys, monkeypatch):
    folder, out, _ = trained
    monkeypatch.chdir(folder)
    config = next((folder / "artifacts" / "mlruns").rglob("config.toml"))
    assert valence("train", "--config", config, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    first = json.loads(out)
    assert again["fingerprints"] == first["fingerprints"]
    assert again["runs"][0]["validation_log_loss"] == pytest.approx(first["runs"][0]["validation_log_loss"], rel=1e-4)


def test_predict_answers_texts(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    assert valence("predict", "The film is great", "The cast is dull", "--json") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["label"] for answer in answers] == ["1", "0"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def test_predict_answers_a_file_row_by_row(trained, reviews, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    options = ["--file", reviews, "--text-column", "review", "--output", "answers.csv"]
    assert valence("predict", *options) == 0
    lines = Path("answers.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "review,stars,film,label,confidence,probability_0,probability_1"
    assert len(lines) == 241
    assert valence("predict", *options) == 2
    assert "answers.csv" in capsys.readouterr().err


def test_verify_says_what_it_found(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    export = json.loads(trained[1])["export"]
    assert valence("verify", export, "--json") == 0
    found = json.loads(capsys.readouterr().out.split("\n}\n")[0] + "\n}")
    assert found["problems"] == []


def test_verify_of_a_changed_export_fails_with_exit_code_1(trained, tmp_path, capsys):
    import shutil

    copy = tmp_path / "1"
    shutil.copytree(trained[0] / json.loads(trained[1])["export"], copy)
    golden = copy / "assets.extra" / "golden.json"
    content = json.loads(golden.read_text(encoding="utf-8"))
    content["probabilities"][0] = [0.5, 0.5]
    golden.write_text(json.dumps(content), encoding="utf-8")
    assert valence("verify", copy) == 1
    assert "differs by" in capsys.readouterr().err


def test_serve_answers_over_http_and_ends_with_0_on_sigterm(trained):
    process = start(PROJECT / "serve.py", "--rest_api_port=0", folder=trained[0])
    try:
        url = address(process)
        answer = requests.post(f"{url}:predict", json={"instances": ["The film is great"]}, timeout=30)
        assert answer.status_code == 200
        assert answer.json()["predictions"][0]["label"] == "1"
        status = requests.get(url, timeout=30).json()
        assert status["model_version_status"][0]["state"] == "AVAILABLE"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def address(process: subprocess.Popen[str]) -> str:
    """The model's URL, as the server says it once it is ready."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("serving "):
            return line.split()[3]
    raise AssertionError(f"serve.py ended with {process.wait()}")


def test_ui_opens_mlflow_on_the_runs(trained):
    process = start("-m", "app", "ui", "--port", "5999", folder=trained[0])
    try:
        assert process.stdout is not None
        assert "http://127.0.0.1:5999/" in process.stdout.readline()
        assert eventually(lambda: "<title>MLflow" in requests.get("http://127.0.0.1:5999/", timeout=5).text)
        assert processes_of_session(process.pid) == 2  # MLflow's own and one that answers
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # MLflow's workers too
        process.communicate(timeout=60)


def processes_of_session(leader: int) -> int:
    """How many processes belong to the session that `leader` began; Linux alone tells."""
    found = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ProcessLookupError):
            found += entry.name.isdecimal() and os.getsid(int(entry.name)) == leader
    return found


def eventually(check, seconds: float = 90) -> bool:
    """Whether `check` comes true before long; a refused connection counts as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if check():
                return True
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    return False


def reviews_of_eighty_films(*arguments: object) -> RawRows:
    """The first films by name of the reviews that come with the demo."""
    rows = load_rotten_tomatoes(*arguments)  # type: ignore[arg-type]
    films = sorted(set(rows.frame["group"]))[:80]
    return replace(rows, frame=rows.frame[rows.frame["group"].isin(films)])


@pytest.mark.slow
def test_the_demo_trains_compares_exports_serves_and_predicts(tmp_path, monkeypatch, capsys):
    # On the reviews of some films alone: with all of them it takes minutes. tests/test_splits.py counts those.
    monkeypatch.setitem(SOURCES, "rotten-tomatoes", reviews_of_eighty_films)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    small = ("model.epochs=2", "vocabulary.size=500", "pipeline.sequence_length=32")
    assert valence("demo", *(word for setting in small for word in ("--set", setting))) == 0
    shown = capsys.readouterr().out
    for stage in ("1 Data", "2 Train", "3 Test", "4 Export", "5 Serve", "Next"):
        assert stage in shown
    for text in ("A small gem of a movie", "python serve.py", "valence ui"):
        assert text in shown
    assert "texts of 80 films" in shown
