"""`valence compare`: from what a person names to a table, a verdict and a report."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Experiment
from report.made import made_compared
from rich.console import Console

from app import cli, comparing
from app.analysis.learning_curve import LearningCurve
from app.calibration import softmax
from app.cli_compare import show
from app.comparing import report_of_experiment
from app.config import RunConfig
from app.saved_model_answers import LabelledTexts, ask
from app.serving.calibration import read_calibration
from app.tracking import Tracker
from app.training import Material

MODELS = ("linear", "lstm", "transformer")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit code, and what was written to standard output and standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *arguments])
    written = capsys.readouterr()
    return int(ended.value.code or 0), written.out, written.err


@pytest.fixture(scope="module")
def artifacts(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment's own folder: comparing adds to its runs and changes nothing."""
    return experiment.artifacts


def ids(experiment: Experiment) -> dict[str, str]:
    return {candidate.run.name: candidate.run_id for candidate in experiment.outcome.candidates}


def test_an_experiment_is_compared_model_by_model(
    experiment: Experiment, artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "kept" / "report.html"
    code, out, _ = run(capsys, "reviews", "--artifacts", str(artifacts), "--output", str(page), "--margin", "2")
    assert code == 0
    assert all(name in out for name in MODELS)
    assert "Slices" in out
    assert "labels are suspect; at most about" in re.sub(r"\s+", " ", out)
    assert "near-duplicate" in out
    assert "within 2 points" in re.sub(r"\s+", " ", out)
    assert f"Report: {page}" in out
    assert "\x1b" not in out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {"comparison.json", "disagreements.csv"} <= {file.name for file in page.parent.iterdir()}
    kept = Tracker(artifacts)
    for run_id in ids(experiment).values():
        assert kept.fetch(run_id, "comparison/report.html").is_file()
    (lstm,) = kept.find_runs(ids(experiment)["lstm"])
    (transformer,) = kept.find_runs(ids(experiment)["transformer"])
    assert (
        lstm.metrics["difference/accuracy_against_transformer"]
        == -transformer.metrics["difference/accuracy_against_lstm"]
    )
    assert lstm.metrics["comparison/p_against_transformer"] == transformer.metrics["comparison/p_against_lstm"]
    assert lstm.metrics["comparison/p95_milliseconds"] > 0


@pytest.mark.parametrize(("width", "is_table"), [(100, True), (60, False), (40, False)])
def test_a_narrow_window_has_the_models_one_below_the_other(width: int, is_table: bool):
    compared = made_compared(tests=60, curves=False)
    written = io.StringIO()
    show(Console(file=written, width=width), compared)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(re.match(r"  model\s\s", line) for line in lines) == is_table
    assert "that would be found here four times in five" in " ".join(written.getvalue().split())
    for row in compared.comparison.table():
        assert any(row["accuracy"] in line for line in lines)


def test_runs_are_found_by_the_start_of_their_ids_and_by_alias(
    experiment: Experiment, artifacts: Path, capsys: pytest.CaptureFixture[str]
):
    run_ids = ids(experiment)
    champion = experiment.outcome.best.run.name
    other = next(name for name in MODELS if name != champion)
    options = ("--artifacts", str(artifacts), "--json", "--no-costs", "--no-leaks")
    code, out, err = run(capsys, run_ids[other][:12], "reviews@champion", *options)
    assert code == 0
    found = json.loads(out)
    assert [model["name"] for model in found["models"]] == [other, champion]
    assert found["unfair"] is None
    assert set(found["missing"]) == {"costs", "leaks"}
    assert "Report:" in err
    assert (artifacts / "reports" / "reviews").is_dir()


def test_saved_models_are_asked_labelled_texts(
    experiment: Experiment, artifacts: Path, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folders = [tmp_path / "reviews" / version for version in ("1", "2")]
    for folder in folders:
        shutil.copytree(experiment.outcome.export, folder)
    temperature = read_calibration(folders[0]).temperature
    (folders[1] / "assets.extra" / "calibration.json").unlink()
    columns = ("--text-column", "review", "--label-column", "stars", "--slice-column", "film")
    code, out, _ = run(
        capsys, *map(str, folders), "--data", str(reviews), *columns, "--artifacts", str(tmp_path), "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert [model["name"] for model in found["models"]] == ["reviews/1", "reviews/2"]
    assert found["test_examples"] == 240
    assert found["pairs"][0]["outcome"] == "same"
    assert found["findings"]["costs"]["models"]
    assert found["missing"]["fair comparison"] == "how these models were trained is not known"
    assert found["missing"]["leaks"] == "a SavedModel does not tell what it was trained on"
    told, untold = (found["findings"]["calibration"][name] for name in ("reviews/1", "reviews/2"))
    assert told["temperature"] == temperature != 1
    assert told["before"]["expected_calibration_error"] != told["after"]["expected_calibration_error"]
    assert told["after"]["expected_calibration_error"] == pytest.approx(untold["after"]["expected_calibration_error"])
    assert (untold["temperature"], untold["before"]) == (None, None)
    assert found["missing"]["calibration before the temperature"].startswith("reviews/2 does not tell")


def test_a_saved_model_gives_back_the_logits_of_before_its_temperature(experiment: Experiment):
    run = experiment.outcome.best.run
    test = run.material.splits.test
    labels = tuple(run.material.splits.label_names[label_id] for label_id in test.label_ids)
    kept = run.answers("export")["test"]
    asked = ask(experiment.outcome.export, "export", LabelledTexts("reviews", test.texts, labels, labels))
    assert asked.temperature == pytest.approx(kept.temperature)
    for one in (1.0, kept.temperature):
        np.testing.assert_allclose(softmax(asked.logits, one), softmax(kept.logits, one), atol=1e-5)


def test_a_learning_curve_is_measured_of_every_model_and_kept(
    experiment: Experiment,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    asked = []
    curve = made_compared(tests=60).findings.curves["lstm"]

    def made_up(config: RunConfig, material: Material, *_: object, **__: object) -> LearningCurve:
        asked.append((config.model_name, len(material.splits.train.texts)))
        return curve

    monkeypatch.setattr(comparing, "learning_curve", made_up)
    page = tmp_path / "report.html"
    options = ("--artifacts", str(artifacts), "--output", str(page), "--no-costs", "--no-leaks", "--learning-curve")
    run_ids = ids(experiment)
    code, out, _ = run(capsys, run_ids["lstm"], run_ids["linear"], *options)
    assert code == 0
    rows = len(experiment.outcome.material.splits.train.texts)
    assert asked == [("lstm", rows), ("linear", rows)]
    assert f"lstm: {curve.sentences[0]}" in re.sub(r"\s+", " ", out)
    assert "--learning-curve" not in out
    assert "rings and the shaded ground" in page.read_text(encoding="utf-8")
    (kept,) = Tracker(artifacts).find_runs(run_ids["linear"])
    assert kept.metrics["learning_curve/accuracy_0.5"] == curve.points[2].accuracy.value


def test_a_curve_that_cannot_be_trained_costs_no_comparison(
    experiment: Experiment,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    curve = made_compared(tests=60).findings.curves["lstm"]

    def diverging(config: RunConfig, *_: object, **__: object) -> LearningCurve:
        if config.model_name == "linear":
            return curve
        raise FloatingPointError("the loss became nan")

    monkeypatch.setattr(comparing, "learning_curve", diverging)
    page, run_ids = tmp_path / "report.html", ids(experiment)
    options = ("--artifacts", str(artifacts), "--output", str(page), "--no-costs", "--no-leaks", "--learning-curve")
    code, out, _ = run(capsys, run_ids["lstm"], run_ids["linear"], *options)
    assert code == 0
    assert "learning curve: lstm: the loss became nan" in out
    assert "Not measured: lstm: the loss became nan." in page.read_text(encoding="utf-8")
    assert "linear: " + curve.sentences[0] in re.sub(r"\s+", " ", out)


def test_an_unlike_pair_is_refused_by_name_and_labelled_when_wanted_anyway(
    experiment: Experiment, artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tracker, run_ids = Tracker(artifacts), ids(experiment)
    tag = "fingerprint.tuning_budget"
    before = tracker.find_runs(run_ids["lstm"])[0].tags[tag]
    tracker.client.set_tag(run_ids["lstm"], tag, "30")
    options = ("--artifacts", str(artifacts), "--output", str(tmp_path / "report.html"), "--no-costs", "--no-leaks")
    try:
        code, out, err = run(capsys, run_ids["lstm"], run_ids["linear"], *options)
        assert code == 2
        assert "the tuning budget" in err
        assert "--anyway" in err
        assert not (tmp_path / "report.html").exists()
        code, out, _ = run(capsys, run_ids["lstm"], run_ids["linear"], *options, "--anyway")
    finally:
        tracker.client.set_tag(run_ids["lstm"], tag, before)
    assert code == 0
    assert "Not a fair comparison: the tuning budget" in re.sub(r"\s+", " ", out)
    assert "Not a fair comparison: the tuning budget" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nosuch", "other"), "no experiment 'nosuch'"),
        (("0123456789", "reviews"), "no run 0123456789"),
        (("reviews@champion",), "two models or more; found:"),
        (("reviews", "--output", "report.pdf"), "ends in .html"),
        (("reviews", "--margin", "0"), "--margin 0"),
        (("reviews", "--text-column", "review"), "--text-column is a column of --data"),
        (("reviews", "--data", "reviews.csv"), "--data is for SavedModel folders"),
    ],
)
def test_a_wrong_request_is_said_and_exits_with_2(
    artifacts: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    code, _, err = run(capsys, *arguments, "--artifacts", str(artifacts))
    assert code == 2
    assert said in re.sub(r"\s+", " ", err)


def test_a_saved_model_needs_labelled_texts_that_it_knows(
    experiment: Experiment, artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    export = str(experiment.outcome.export)
    code, _, err = run(capsys, export, export, "--artifacts", str(artifacts))
    assert (code, "--data FILE" in err) == (2, True)
    code, _, err = run(capsys, export, "reviews", "--artifacts", str(artifacts))
    assert (code, "folders with folders" in err) == (2, True)
    (tmp_path / "other.csv").write_text("text,label\ngood,0\nbad,7\n", encoding="utf-8")
    code, _, err = run(capsys, export, export, "--data", str(tmp_path / "other.csv"), "--artifacts", str(artifacts))
    assert code == 2
    assert "line 3" in err
    assert "'7'" in err


def test_an_experiment_that_has_ended_gets_its_report(experiment: Experiment, artifacts: Path):
    page = report_of_experiment(experiment.outcome, artifacts, "26 November 2026")
    text = page.read_text(encoding="utf-8")
    assert "26 November 2026" in text
    assert "valence compare times the models beside each other" in text
    content = json.loads(page.with_name("comparison.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in content["models"]] == list(MODELS)
    assert all(line["same"] for line in content["lock"])
    assert content["missing"].keys() == {"costs", "leaks"}
