"""The accuracy table of benchmarks/: what is kept, what is trained again, and what the lines say."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import ablation
import accuracy
import long_texts
import peer_linear
from accuracy_runs import Task, choose_rows, missing_runs, row_of, train_missing
from accuracy_systems import MaterialCache, PeerSystem, Trained, key_of, said_of_init
from accuracy_table import ablate, ablation_markdown, markdown, versions_note
from code_version import fingerprint, version_of_models, version_of_script
from peers import PEERS
from trained_runs import RunStore

from app.config import resolve_config
from app.errors import RequestError
from app.metrics import evaluate_seeds
from data.splits import Split, Splits

COLUMNS = ["data.text_column=review", "data.label_column=stars"]
SMALL = ["vocabulary.size=100", "pipeline.sequence_length=12", "pipeline.cache_limit_mb=0"]
TINY = ["model.embedding_dim=4", "model.filters=4", "model.widths=[2]", "model.wide_buckets=64", "model.epochs=1"]


def made_splits(rows: int = 60) -> Splits:
    """Splits whose label is whether the row number is odd."""

    def split(start: int) -> Split:
        numbers = range(start, start + rows)
        return Split(tuple(f"row {number}" for number in numbers), np.array(numbers, np.int32) % 2)

    return Splits("made", "made up", ("even", "odd"), split(0), split(100), split(200), {}, "as given", "f" * 64)


@dataclass
class FakeSystem:
    """Is wrong on its first `mistakes` test texts, and counts how often it was trained."""

    name: str = "fake"
    mistakes: int = 6
    one_seed_is_enough: bool = False
    missing: str | None = None
    fails_with: int | None = None
    version: str = "a" * 16
    encoder_accuracy: float | None = None
    trained: list[int] = field(default_factory=list)

    def configuration(self, seed: int) -> dict[str, object]:
        return {"mistakes": self.mistakes}

    def outside_text(self) -> str | None:
        return None

    def train(self, splits: Splits, seed: int) -> Trained:
        if seed == self.fails_with:
            raise FloatingPointError("the loss became nan")
        self.trained.append(seed)
        right = splits.test.label_ids.copy()
        right[: self.mistakes + seed] ^= 1
        return Trained(np.eye(2)[right] * 0.8 + 0.1, 90.0, 3.0, 1_234, {"epochs": 1}, self.encoder_accuracy)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "accuracy.json"


# What is kept


def test_a_run_is_in_the_file_at_once_and_is_not_trained_again(file: Path):
    system, splits = FakeSystem(), made_splits()
    train_missing([Task(splits, system, (0, 1))], RunStore(file))
    assert [run["accuracy"] for run in json.loads(file.read_text())["runs"]] == [54 / 60, 53 / 60]
    assert train_missing([Task(splits, system, (0, 1, 2))], RunStore(file)) == {}
    assert system.trained == [0, 1, 2]


def test_other_settings_or_other_data_are_another_run(file: Path):
    splits = made_splits()
    train_missing([Task(splits, FakeSystem(), (0,))], RunStore(file))
    store = RunStore(file)
    assert missing_runs([Task(splits, FakeSystem(), (0,))], store) == []
    assert len(missing_runs([Task(splits, FakeSystem(mistakes=7), (0,))], store)) == 1
    other = Splits(**{**vars(splits), "fingerprint": "0" * 64})
    assert len(missing_runs([Task(other, FakeSystem(), (0,))], store)) == 1


def test_two_processes_may_write_to_one_file(file: Path):
    splits = made_splits()
    one, other = RunStore(file), RunStore(file)
    train_missing([Task(splits, FakeSystem("one"), (0,))], one)
    train_missing([Task(splits, FakeSystem("other"), (0,))], other)
    assert len(RunStore(file)) == 2


def test_a_run_without_its_answers_is_trained_again(file: Path):
    splits, system = made_splits(), FakeSystem()
    train_missing([Task(splits, system, (0,))], RunStore(file))
    store = RunStore(file)
    (store.answers_folder / f"{key_of(system, splits, 0).short}.npz").unlink()
    assert store.find(key_of(system, splits, 0)) is None


def test_runs_of_another_version_of_the_code_stay_and_are_told_and_trained_anew_when_asked(file: Path):
    splits, store = made_splits(), RunStore(file)
    train_missing([Task(splits, FakeSystem(version="a" * 16), (0, 1))], store)
    new = FakeSystem(version="b" * 16)
    task = Task(splits, new, (0, 1, 2))
    train_missing([task], store)
    assert new.trained == [2]
    note = versions_note([row_of(task, store, {})])
    assert "- made, fake: 2 of aaaaaaaa, now bbbbbbbb, 3 runs in all" in note
    train_missing([task], store, anew=True)
    assert new.trained == [2, 0, 1]
    assert versions_note([row_of(task, store, {})]) == ""


def test_a_run_from_before_versions_were_kept_is_of_an_unknown_one(file: Path):
    task = Task(made_splits(), FakeSystem(), (0,))
    train_missing([task], RunStore(file))
    content = json.loads(file.read_text())
    for name in ("code", "encoder_accuracy"):
        del content["runs"][0][name]
    file.write_text(json.dumps(content))
    store = RunStore(file)
    assert missing_runs([task], store) == []
    assert len(missing_runs([task], store, anew=True)) == 1
    assert "1 of unknown version, now aaaaaaaa" in versions_note([row_of(task, store, {})])


def test_a_version_is_that_of_names_and_contents(tmp_path: Path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("a = 1\n")
    other.write_text("b = 1\n")
    before = fingerprint(tmp_path, [one, other])
    assert fingerprint(tmp_path, [other, one]) == before
    other.write_text("b = 2\n")
    assert fingerprint(tmp_path, [one, other]) != before
    assert len({version_of_models(), version_of_script("peer_linear.py"), version_of_script("peer_torch.py")}) == 3


def test_an_answer_on_long_texts_tells_its_version(tmp_path: Path):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    np.savez(old, probabilities=np.eye(2))
    np.savez(new, probabilities=np.eye(2), code="b" * 16)
    versions = [long_texts.version_of(old), long_texts.version_of(new)]
    assert versions == [None, "b" * 16]
    note = long_texts.versions_note({"head": {"versions": versions}}, "b" * 16)
    assert "than bbbbbbbb, which --anew trains again: 1 of unknown version" in note
    assert long_texts.versions_note({"head": {"versions": versions[1:]}}, "b" * 16) == ""


def test_refit_is_a_setting_only_of_peers_that_can():
    for name, same in (("torch-lstm", True), ("tfidf", False)):
        plain, refit = (PeerSystem(PEERS[name], None, flag).configuration(0) for flag in (False, True))
        assert (plain == refit) is same


def test_a_file_of_something_else_is_refused_and_left_as_it_is(file: Path):
    file.write_text('{"rows": []}')
    with pytest.raises(RequestError, match="not a file of trained runs"):
        RunStore(file)
    assert file.read_text() == '{"rows": []}'


def test_a_seed_that_fails_costs_only_itself(file: Path):
    system, splits = FakeSystem(fails_with=1), made_splits()
    task, store = Task(splits, system, (0, 1, 2)), RunStore(file)
    failed = train_missing([task], store)
    assert failed == {("made", "fake"): "seed 1 failed: the loss became nan"}
    row = row_of(task, store, failed)
    assert len(row.runs) == 2
    assert "fake (seed 1 failed: the loss became nan)" in markdown([row])


# What the table says


def test_the_line_of_a_system_has_the_interval_over_its_seeds(file: Path):
    task, store = Task(made_splits(), FakeSystem(), (0, 1, 2)), RunStore(file)
    train_missing([task], store)
    row = row_of(task, store, {})
    answers = np.stack([store.answers(run.key)[1] for run in row.runs])
    expected = evaluate_seeds(task.splits.test.label_ids, answers, ("even", "odd")).metrics["accuracy"]
    assert row.evaluation is not None
    assert row.evaluation.metrics["accuracy"] == expected
    assert expected.value == pytest.approx((54 + 53 + 52) / 180)
    cells = [cell.strip() for cell in markdown([row]).splitlines()[2].strip("|").split("|")]
    assert cells[:3] == ["made (60 / 60)", "fake", "3"]
    assert cells[3].startswith("0.883 [")
    assert cells[4] == ""
    assert cells[7:] == ["1.5", "none", "1,234"]


def test_the_encoder_alone_is_the_mean_of_the_seeds_that_have_it(file: Path):
    task, store = Task(made_splits(), FakeSystem(encoder_accuracy=0.75), (0, 1)), RunStore(file)
    train_missing([task], store)
    assert "| 0.750 " in markdown([row_of(task, store, {})])
    more = Task(task.splits, FakeSystem(), (0, 1, 2))
    train_missing([more], store)
    row = row_of(more, store, {})
    assert "| 0.750 (2 of 3 seeds) " in markdown([row])
    assert "| 0.750 (2 of 3 seeds) " in ablation_markdown(row, [], [])


def test_a_data_set_is_named_once_and_what_is_not_installed_has_a_line(file: Path):
    splits, store = made_splits(), RunStore(file)
    tasks = [Task(splits, FakeSystem(), (0,)), Task(splits, FakeSystem("far", missing="not installed"), (0,))]
    train_missing(tasks, store)
    lines = markdown([row_of(task, store, {}) for task in tasks]).splitlines()
    assert [line.count("made") for line in lines] == [0, 0, 1, 0]
    assert "not installed" in lines[3]
    assert len({len(line) for line in lines}) == 1


def test_an_ablation_says_what_the_change_takes_away(file: Path):
    splits, store = made_splits(), RunStore(file)
    systems = [FakeSystem("base", 4), FakeSystem("worse", 16), FakeSystem("equal", 5)]
    tasks = [Task(splits, system, (0, 1, 2)) for system in systems]
    train_missing(tasks, store)
    base, *changes = (row_of(task, store, {}) for task in tasks)
    worse, equal = ablate(base, changes, store)
    assert worse.difference.value == pytest.approx(12 / 60)
    assert worse.difference.low > 0
    assert worse.adjusted_p_value < 0.01 < equal.adjusted_p_value
    lines = ablation_markdown(base, changes, [worse, equal]).splitlines()
    assert "points" not in lines[2]
    assert "+20 points" in lines[3] or "+20.0 points" in lines[3]


def test_text_from_outside_is_told_in_words_or_by_what_is_named():
    @dataclass
    class Init:
        runs: tuple[str, ...] = ()
        vectors: Path | None = None
        starts_from: str = ""

    assert said_of_init(None) is None
    assert said_of_init(Init()) is None
    assert said_of_init(Init(("3f2a",), Path("words/glove.txt"))) == "run 3f2a, vectors glove.txt"
    assert said_of_init(Init(("3f2a",), starts_from="an encoder learned from x")) == "an encoder learned from x"


# What is trained


def test_fewer_training_rows_keep_the_shares_of_the_classes():
    labels = np.array([0] * 60 + [1] * 38 + [2] * 2, np.int32)
    train = Split(tuple(f"text {number}" for number in range(100)), labels)
    part = choose_rows(train, 10, "made")
    assert np.bincount(part.label_ids).tolist() == [5, 4, 1] or np.bincount(part.label_ids).tolist() == [6, 3, 1]
    assert part.texts == choose_rows(train, 10, "made").texts
    assert all(labels[int(text.split()[1])] == one for text, one in zip(part.texts, part.label_ids, strict=True))
    with pytest.raises(RequestError, match=r"--train-rows 101: made allows 3 \(one a class\) to 100"):
        choose_rows(train, 101, "made")


def test_a_change_is_a_name_and_settings():
    assert ablation.parse_change("no wide path: model.wide=false") == ("no wide path", ["model.wide=false"])
    assert ablation.parse_change("a: b.c=1, d.e=[1,2]") == ("a", ["b.c=1", "d.e=[1,2]"])
    for wrong in ("model.wide=false", ": a.b=1", "a:", "a: model.wide", "a: data.split_seed=1", "a: seed=1"):
        with pytest.raises(RequestError, match="--change"):
            ablation.parse_change(wrong)


def test_linear_peers_learn_words_or_characters():
    labels = np.arange(40) % 2
    english = [f"a {('dull', 'great')[label]} film number {row}" for row, label in enumerate(labels)]
    chinese = [("这家酒店的房间很脏服务也不好", "这家酒店的房间很好服务也周到")[label] * 2 for label in labels]
    for texts, analyzer in ((english, "word"), (chinese, "char")):
        for kind in ("tfidf", "nblr"):
            found = peer_linear.train(kind, (texts, labels), (texts, labels), (texts, labels))
            assert found.details["analyzer"] == analyzer
            assert (found.probabilities.argmax(axis=1) == labels).all()
            np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_log_count_ratios_tell_more_than_two_classes():
    labels = np.arange(60) % 3
    texts = [f"{('red', 'green', 'blue')[label]} thing {row}" for row, label in enumerate(labels)]
    found = peer_linear.train("nblr", (texts, labels), (texts, labels), (texts, labels), refit=True)
    assert (found.probabilities.argmax(axis=1) == labels).all()


def test_a_peer_without_its_package_says_so(tmp_path: Path):
    assert "--peer-python" in (PEERS["fasttext"].missing(None) or "")
    with pytest.raises(RequestError, match="no interpreter that can be started"):
        PEERS["torch-lstm"].missing(tmp_path / "python")


def test_token_ids_on_disk_are_there_until_the_next_material_is_made(reviews: Path, tmp_path: Path):
    materials = MaterialCache(tmp_path)
    data = {"source": str(reviews), "text_column": "review", "label_column": "stars"}
    config = resolve_config("cnn", {}, SMALL, data)
    made, _ = materials.material(config)
    (first,) = tmp_path.iterdir()
    train = made.datasets.train
    assert sum(len(rows) for rows, _, _ in train.evaluation_batches()) == len(train)
    assert materials.material(config.model_copy(update={"seed": 3}))[0] is made
    assert first.exists()
    materials.material(resolve_config("cnn", {}, [*SMALL, "pipeline.sequence_length=8"], data))
    assert not first.exists()
    assert len(list(tmp_path.iterdir())) == 1


# The commands


def test_a_model_and_a_peer_are_trained_once(reviews: Path, file: Path, capsys: pytest.CaptureFixture[str]):
    call = ["--models", "cnn", "--peers", "tfidf", "fasttext", "--seeds", "1", "--output", str(file)]
    call += ["--data", str(reviews), "--train-rows", "40", "--group-column", "film"]
    for setting in (*COLUMNS, *SMALL, *TINY):
        call += ["--set", setting]
    assert accuracy.main([*call, "--plan"]) == 0
    assert "2 runs to train" in capsys.readouterr().out
    assert not file.exists()
    assert accuracy.main(call) == 0
    data, cnn, tfidf, fasttext = capsys.readouterr().out.splitlines()[1:]
    assert set(data) == {"|", "-", " "}
    assert "reviews-40 (40 / " in cnn
    assert "TF-IDF + LR" in tfidf
    assert "not installed" in fasttext
    (ours, _) = json.loads(file.read_text())["runs"]
    assert ours["parameters"] > 4 * 60
    assert 0 <= ours["encoder_accuracy"] <= 1
    assert ours["code"] == version_of_models()
    assert ours["training_cpu_seconds"] > 0 < ours["preparation_cpu_seconds"]
    assert accuracy.main([*call, "--plan"]) == 0
    assert "0 runs to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--models", "linear", "--config", "linear=a.toml"], "linear is named more than once"),
        (["--config", "a.toml"], "write NAME=FILE"),
        (["--config", "a=nowhere.toml"], "no configuration file nowhere.toml"),
        (["--models", "linear", "--set", "model.depth=3"], "model.depth"),
        (["--data", "nowhere.csv"], "no such source or file"),
        (["--archive", "a.tar.gz"], "--archive a.tar.gz: only imdb is read from one"),
        (["--data", "rotten-tomatoes", "--group-column", "film"], "--group-column film: only files have columns"),
        (["--set", "seed=3"], "--set seed=3: each run has a seed of its own"),
        (["--set", "seeds=2"], "--set seeds=2: each run has a seed of its own"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_allowed(call, message, reviews: Path, file: Path, capsys):
    if "--data" not in call:
        call = [*call, "--data", str(reviews), "--set", "data.text_column=review", "--set", "data.label_column=stars"]
    assert accuracy.main([*call, "--output", str(file)]) == 2
    assert message in capsys.readouterr().err


def test_an_ablation_of_settings_that_change_nothing_is_refused(reviews: Path, file: Path, capsys):
    call = ["linear", "--data", str(reviews), "--output", str(file), "--set", "data.text_column=review"]
    call += ["--set", "data.label_column=stars", "--plan"]
    assert ablation.main([*call, "--change", "same: fit.clip_norm=1.0"]) == 2
    assert "the base has these settings already" in capsys.readouterr().err
    assert ablation.main([*call, "--seeds", "2", "--change", "free: fit.clip_norm=9.0"]) == 0
    assert "4 runs to train" in capsys.readouterr().out
