"""Versions come and go beside requests: small stand-ins for models where timing matters."""

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.errors import RequestError
from app.serving.model_config import ModelSettings, VersionPolicy
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.status import Code, ServingError

TOY = ModelSpec("toy")
POLL = 0.02  # seconds
PATIENCE = 20  # seconds until a test gives up waiting


class StandIn:
    """What is loaded from a folder; the text of its saved_model.pb says how that goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = int(path.name)
        self.is_closed = False
        file = path / "saved_model.pb"
        if not file.is_file():
            raise RequestError(f"{path} is no SavedModel")
        if file.read_text().startswith("broken"):
            raise RequestError(f"{path} cannot be loaded: {file.read_text()}")

    def warm_up(self) -> int:
        if "cold" in (self.path / "saved_model.pb").read_text():
            raise RequestError("record 1: warm-up failed") from ServingError(Code.INVALID_ARGUMENT, "no such signature")
        return 1

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class Loader:
    """Loads stand-ins and remembers them; `before` runs in the middle of each load."""

    def __init__(self, before: Callable[[Path], None] = lambda path: None) -> None:
        self.before = before
        self.asked: list[int] = []
        self.loaded: list[StandIn] = []

    def __call__(self, path: Path) -> StandIn:
        self.asked.append(int(path.name))
        self.before(path)
        self.loaded.append(StandIn(path))
        return self.loaded[-1]

    def open_versions(self) -> list[int]:
        return [servable.version for servable in self.loaded if not servable.is_closed]


def put(base: Path, number: int, text: str = "whole") -> Path:
    """Put a version there as one should: written under another name, then renamed."""
    hidden = base / f"writing-{number}"
    hidden.mkdir(parents=True)
    (hidden / "saved_model.pb").write_text(text)
    return hidden.rename(base / str(number))


def toy(base: Path, policy: VersionPolicy | None = None, **labels: int) -> ModelSettings:
    return ModelSettings("toy", base, policy or VersionPolicy(), labels)


@contextmanager
def running(*models: ModelSettings, load: Callable | None = None, **options) -> Iterator[ModelRepository]:
    repository = ModelRepository(models, load or StandIn, **{"poll_seconds": POLL, **options})
    repository.start()
    try:
        yield repository
    finally:
        repository.close()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(POLL / 4)


def states(repository: ModelRepository, name: str = "toy") -> dict[int, str]:
    try:
        return {status.version: str(status.state) for status in repository.statuses(ModelSpec(name))}
    except ServingError:
        return {}


def answering(repository: ModelRepository, spec: ModelSpec = TOY) -> int:
    with repository.lease(spec) as servable:
        assert not servable.is_closed
        return servable.version


def refusal(repository: ModelRepository, spec: ModelSpec) -> tuple[str, str]:
    with pytest.raises(ServingError) as refused, repository.lease(spec):
        pass
    return refused.value.code.name, refused.value.message


# --- starting ---


def test_the_highest_version_is_served_and_others_are_not_loaded(tmp_path):
    for number in (2, 10, 9):
        put(tmp_path, number)
    (tmp_path / "v11").mkdir()
    (tmp_path / "11.5").mkdir()
    with running(toy(tmp_path)) as repository:
        assert answering(repository) == 10
        assert states(repository) == {10: "AVAILABLE"}
        assert repository.names() == ["toy"]


def test_at_the_start_a_broken_version_gives_way_to_the_one_below(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    put(tmp_path, 3, "broken on the way")
    with running(toy(tmp_path)) as repository:
        assert answering(repository) == 2
        assert states(repository) == {3: "END", 2: "AVAILABLE"}
        (status,) = repository.statuses(ModelSpec("toy", 3))
        assert status.code is Code.INTERNAL
        assert "broken on the way" in status.message


def test_without_a_version_that_loads_it_does_not_start(tmp_path):
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 1, "broken")
    put(tmp_path / "b", 2, "broken too")
    (tmp_path / "c").mkdir()
    load = Loader()
    folders = [ModelSettings(name, tmp_path / name) for name in ("a", "b", "c", "d")]
    with pytest.raises(RequestError) as refused:
        ModelRepository(folders, load).start()
    reasons = str(refused.value)
    assert "model a:" not in reasons
    assert "model b:" in reasons
    assert "broken too" in reasons
    assert f"model c: No versions of servable c found under base path {tmp_path / 'c'}" in reasons
    assert "model d:" in reasons
    assert load.open_versions() == []


def test_a_base_path_may_be_one_version_folder(tmp_path):
    with running(ModelSettings("toy", put(tmp_path, 4))) as repository:
        assert answering(repository) == 4


# --- what clients are told ---


def test_what_is_not_there_is_refused_in_the_words_of_the_contract(tmp_path):
    put(tmp_path, 1)
    with running(toy(tmp_path)) as repository:
        assert refusal(repository, ModelSpec("none")) == (
            "NOT_FOUND",
            "Servable not found for request: Latest(none)",
        )
        assert refusal(repository, ModelSpec("toy", 99)) == (
            "NOT_FOUND",
            "Servable not found for request: Specific(toy, 99)",
        )
        assert refusal(repository, ModelSpec("toy", label="nolabel")) == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: nolabel",
        )
        with pytest.raises(ServingError, match=r"^Could not find any versions of model none$"):
            repository.statuses(ModelSpec("none"))
        with pytest.raises(ServingError, match=r"^Could not find version 99 of model toy$"):
            repository.statuses(ModelSpec("toy", 99))
        assert len(repository.statuses(ModelSpec("toy", label="nolabel"))) == 1


# --- a new version ---


def test_a_new_version_takes_over_and_the_old_one_ends(tmp_path):
    put(tmp_path, 1)
    load = Loader()
    with running(toy(tmp_path), load=load) as repository:
        put(tmp_path, 2)
        until(lambda: answering(repository) == 2)
        until(lambda: states(repository) == {2: "AVAILABLE", 1: "END"})
        assert load.open_versions() == [2]
    assert load.open_versions() == []


def test_the_old_version_answers_while_the_new_one_loads(tmp_path):
    put(tmp_path, 1)
    is_loading, may_go_on = threading.Event(), threading.Event()

    def wait(path: Path) -> None:
        if path.name == "2":
            is_loading.set()
            assert may_go_on.wait(PATIENCE)

    with running(toy(tmp_path), load=Loader(wait)) as repository:
        put(tmp_path, 2)
        assert is_loading.wait(PATIENCE)
        assert states(repository) == {2: "LOADING", 1: "AVAILABLE"}
        assert answering(repository) == 1
        may_go_on.set()
        until(lambda: answering(repository) == 2)


def test_a_request_under_way_keeps_its_version_until_it_is_answered(tmp_path):
    put(tmp_path, 1)
    with running(toy(tmp_path)) as repository:
        with repository.lease(TOY) as old:
            put(tmp_path, 2)
            until(lambda: answering(repository) == 2)
            assert states(repository) == {2: "AVAILABLE", 1: "UNLOADING"}
            assert refusal(repository, ModelSpec("toy", 1))[0] == "NOT_FOUND"
            time.sleep(4 * POLL)
            assert not old.is_closed
        until(lambda: old.is_closed)
        until(lambda: states(repository) == {2: "AVAILABLE", 1: "END"})


def test_no_request_fails_or_meets_a_closed_version_while_versions_change(tmp_path):
    put(tmp_path, 1)
    stop, failures, seen = threading.Event(), [], set()

    def ask(repository: ModelRepository) -> None:
        while not stop.is_set():
            try:
                with repository.lease(TOY) as servable:
                    assert not servable.is_closed
                    time.sleep(0.0005)
                    assert not servable.is_closed
                    seen.add(servable.version)
            except (ServingError, AssertionError) as error:
                failures.append(error)

    load = Loader()
    with running(toy(tmp_path), load=load, poll_seconds=0.002) as repository:
        clients = [threading.Thread(target=ask, args=[repository]) for _ in range(6)]
        for client in clients:
            client.start()
        for number in range(2, 22):
            put(tmp_path, number)
            until(lambda number=number: number in seen)
            shutil.rmtree(tmp_path / str(number - 1))
        stop.set()
        for client in clients:
            client.join()
        until(lambda: load.open_versions() == [21])
    assert failures == []
    assert seen == set(range(1, 22))


# --- a version that is broken or half there ---


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("broken", Code.INTERNAL, "cannot be loaded: broken"),
        ("cold", Code.INVALID_ARGUMENT, "record 1: warm-up failed"),
        (None, Code.NOT_FOUND, "is no SavedModel"),
    ],
)
def test_a_broken_version_ends_with_the_reason_and_the_old_one_keeps_serving(tmp_path, text, code, reason):
    put(tmp_path, 1)
    load = Loader()
    with running(toy(tmp_path), load=load) as repository:
        if text is None:
            (tmp_path / "2").mkdir()
        else:
            put(tmp_path, 2, text)
        until(lambda: states(repository) == {2: "END", 1: "AVAILABLE"})
        status = repository.statuses(TOY)[0]
        assert (status.version, status.code) == (2, code)
        assert reason in status.message
        assert answering(repository) == 1
        assert load.open_versions() == [1]


def test_a_failure_nobody_foresaw_ends_like_any_other(tmp_path):
    def fail(path: Path) -> None:
        if path.name == "2":
            raise ZeroDivisionError("in the graph of a stranger")

    put(tmp_path, 1)
    with running(toy(tmp_path), load=Loader(fail)) as repository:
        put(tmp_path, 2)
        until(lambda: states(repository) == {2: "END", 1: "AVAILABLE"})
        assert repository.statuses(TOY)[0].message == "in the graph of a stranger"
        put(tmp_path, 3)
        until(lambda: answering(repository) == 3)


def test_a_broken_version_is_tried_again_when_its_files_change_and_not_before(tmp_path):
    put(tmp_path, 1)
    load = Loader()
    with running(toy(tmp_path), load=load) as repository:
        put(tmp_path, 2, "broken")
        until(lambda: states(repository).get(2) == "END")
        time.sleep(6 * POLL)
        assert load.asked == [1, 2]
        (tmp_path / "2" / "saved_model.pb").write_text("whole now")
        until(lambda: answering(repository) == 2)
        assert load.asked == [1, 2, 2]
        until(lambda: states(repository) == {2: "AVAILABLE", 1: "END"})


def test_a_version_above_a_broken_one_replaces_the_last_good_one(tmp_path):
    put(tmp_path, 1)
    with running(toy(tmp_path)) as repository:
        put(tmp_path, 2, "broken")
        until(lambda: states(repository).get(2) == "END")
        put(tmp_path, 3)
        until(lambda: states(repository) == {3: "AVAILABLE", 2: "END", 1: "END"})


def test_a_folder_that_still_grows_is_left_alone(tmp_path):
    put(tmp_path, 1)
    load = Loader()
    with running(toy(tmp_path), load=load, poll_seconds=0.1) as repository:
        folder = put(tmp_path, 2)
        for length in range(40):
            (folder / "variables").write_bytes(b"x" * length)
            time.sleep(0.02)
        seen_while_growing = (list(load.asked), states(repository))
        until(lambda: answering(repository) == 2)
    assert seen_while_growing == ([1], {2: "START", 1: "AVAILABLE"})


def test_a_version_that_changes_while_it_loads_does_not_take_over_before_it_is_whole(tmp_path):
    attempts = itertools.count()

    def change(path: Path) -> None:
        if path.name == "2" and next(attempts) == 0:
            (path / "variables").write_bytes(b"more")

    put(tmp_path, 1)
    load = Loader(change)
    with running(toy(tmp_path), load=load, poll_seconds=0.2) as repository:
        put(tmp_path, 2)
        until(lambda: states(repository).get(2) == "END")
        status = repository.statuses(TOY)[0]
        assert status.code is Code.UNAVAILABLE
        assert status.message == f"{tmp_path / '2'} changed while it was being loaded"
        assert answering(repository) == 1
        until(lambda: answering(repository) == 2)
        assert load.asked == [1, 2, 2]
        until(lambda: load.open_versions() == [2])


# --- policies ---


def test_the_latest_versions_are_served_side_by_side(tmp_path):
    for number in (1, 2, 3):
        put(tmp_path, number)
    with running(toy(tmp_path, VersionPolicy("latest", 2))) as repository:
        assert states(repository) == {3: "AVAILABLE", 2: "AVAILABLE"}
        assert [answering(repository), answering(repository, ModelSpec("toy", 2))] == [3, 2]
        put(tmp_path, 4)
        until(lambda: states(repository) == {4: "AVAILABLE", 3: "AVAILABLE", 2: "END"})


def test_several_new_versions_at_once_come_in_one_by_one(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    load, held = Loader(), []
    load.before = lambda path: held.append(load.open_versions())
    with running(toy(tmp_path, VersionPolicy("latest", 2)), load=load) as repository:
        hidden = put(tmp_path / "elsewhere", 3)
        put(tmp_path, 4)
        hidden.rename(tmp_path / "3")
        until(lambda: states(repository) == {4: "AVAILABLE", 3: "AVAILABLE", 2: "END", 1: "END"})
    assert max(map(len, held)) <= 2  # and the one that was just being loaded


def test_all_versions_are_served_and_what_is_deleted_ends(tmp_path):
    for number in (1, 2, 3):
        put(tmp_path, number)
    with running(toy(tmp_path, VersionPolicy("all"))) as repository:
        assert [answering(repository, ModelSpec("toy", number)) for number in (1, 2, 3)] == [1, 2, 3]
        shutil.rmtree(tmp_path / "3")
        until(lambda: states(repository) == {3: "END", 2: "AVAILABLE", 1: "AVAILABLE"})
        assert answering(repository) == 2


def test_only_the_specific_versions_are_served(tmp_path):
    for number in (1, 2, 3):
        put(tmp_path, number)
    with running(toy(tmp_path, VersionPolicy("specific", versions=(1, 7)))) as repository:
        assert states(repository) == {1: "AVAILABLE"}
        put(tmp_path, 7)
        until(lambda: states(repository) == {7: "AVAILABLE", 1: "AVAILABLE"})


def test_a_specific_version_that_is_not_there_is_named(tmp_path):
    put(tmp_path, 1)
    with pytest.raises(RequestError, match=r"among those asked for \(7, 8\)"):
        ModelRepository([toy(tmp_path, VersionPolicy("specific", versions=(7, 8)))], StandIn).start()


def test_deleting_the_newest_version_brings_the_one_before_back(tmp_path):
    put(tmp_path, 1)
    load = Loader()
    with running(toy(tmp_path), load=load) as repository:
        put(tmp_path, 2)
        until(lambda: states(repository) == {2: "AVAILABLE", 1: "END"})
        shutil.rmtree(tmp_path / "2")
        until(lambda: states(repository) == {2: "END", 1: "AVAILABLE"})
        assert load.asked == [1, 2, 1]


def test_deleting_the_only_version_unloads_it_as_tensorflow_serving_does(tmp_path):
    put(tmp_path / "a", 1)
    with running(toy(tmp_path / "a")) as repository:
        shutil.rmtree(tmp_path / "a" / "1")
        until(lambda: states(repository) == {1: "END"})
        assert refusal(repository, TOY) == ("NOT_FOUND", "Servable not found for request: Latest(toy)")
        put(tmp_path / "a", 1)
        until(lambda: states(repository) == {1: "AVAILABLE"})


def test_a_base_path_out_of_reach_unloads_nothing(tmp_path, caplog):
    put(tmp_path / "disk", 1)
    with running(toy(tmp_path / "disk")) as repository:
        (tmp_path / "disk").rename(tmp_path / "away")
        until(lambda: f"Could not find base path {tmp_path / 'disk'} for servable toy" in caplog.text)
        time.sleep(4 * POLL)
        assert answering(repository) == 1
        (tmp_path / "away").rename(tmp_path / "disk")
        put(tmp_path / "disk", 2)
        until(lambda: answering(repository) == 2)
    assert caplog.text.count("Could not find base path") == 1


def test_the_list_of_ended_versions_stays_short(tmp_path):
    put(tmp_path, 1)
    with running(toy(tmp_path), poll_seconds=0.002) as repository:
        for number in range(2, 51):
            put(tmp_path, number)
            until(lambda number=number: answering(repository) == number)
            shutil.rmtree(tmp_path / str(number - 1))
        until(lambda: len(repository.statuses(TOY)) <= 33)
        assert [status.version for status in repository.statuses(TOY)[:3]] == [50, 49, 48]


def test_without_polling_the_folders_are_read_once(tmp_path):
    put(tmp_path, 1)
    threads = threading.active_count()
    with running(toy(tmp_path), poll_seconds=0) as repository:
        assert threading.active_count() == threads
        put(tmp_path, 2)
        assert answering(repository) == 1


# --- labels and the config file ---


def write_config(path: Path, *models: str) -> Path:
    fields = " ".join(f"config {{ {model} }}" for model in models)
    new = path.with_suffix(".new")
    new.write_text(f"model_config_list {{ {fields} }}")
    return new.replace(path)


def config_of(base: Path, *versions: int, name: str = "toy", **labels: int) -> str:
    policy = " ".join(f"versions: {version}" for version in versions)
    entries = " ".join(f'version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
    return f'name: "{name}" base_path: "{base}" model_version_policy {{ specific {{ {policy} }} }} {entries}'


@contextmanager
def configured(path: Path, *models: str, **options) -> Iterator[ModelRepository]:
    from app.serving.model_config import read_model_config

    write_config(path, *models)
    options = {"config_file": path, "config_poll_seconds": POLL, **options}
    with running(*read_model_config(path), **options) as repository:
        yield repository


def test_rewriting_the_config_moves_a_label_forth_and_back(tmp_path, caplog):
    put(tmp_path, 1)
    put(tmp_path, 2)
    stable, file = ModelSpec("toy", label="stable"), tmp_path / "models.config"
    with configured(file, config_of(tmp_path, 1, 2, stable=1, canary=2)) as repository:
        assert [answering(repository, stable), answering(repository, ModelSpec("toy", label="canary"))] == [1, 2]
        write_config(file, config_of(tmp_path, 1, 2, stable=2))
        until(lambda: answering(repository, stable) == 2)
        assert refusal(repository, ModelSpec("toy", label="canary"))[1] == (
            "Unrecognized servable version label: canary"
        )
        write_config(file, config_of(tmp_path, 1, 2, stable=1))
        until(lambda: answering(repository, stable) == 1)
    assert "not currently available" not in caplog.text


def test_a_label_moves_only_once_its_version_answers(tmp_path, caplog):
    put(tmp_path, 1)
    put(tmp_path, 2, "broken")
    stable, file = ModelSpec("toy", label="stable"), tmp_path / "models.config"
    with configured(file, config_of(tmp_path, 1, stable=1)) as repository:
        write_config(file, config_of(tmp_path, 2, 1, stable=2, new=2))
        complaint = "label stable to version 2 of model toy, which is not currently available for inference"
        until(lambda: complaint in caplog.text)
        assert answering(repository, stable) == 1
        assert refusal(repository, ModelSpec("toy", label="new"))[0] == "INVALID_ARGUMENT"
        (tmp_path / "2" / "saved_model.pb").write_text("whole")
        until(lambda: answering(repository, stable) == 2)
        assert answering(repository, ModelSpec("toy", label="new")) == 2


def test_a_labelled_version_is_replaced_without_one_refused_request(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    stable, file = ModelSpec("toy", label="stable"), tmp_path / "models.config"
    with configured(file, config_of(tmp_path, 1, stable=1), poll_seconds=0.002) as repository:
        stop, seen, failures = threading.Event(), [], []

        def ask() -> None:
            while not stop.is_set():
                try:
                    seen.append(answering(repository, stable))
                except ServingError as error:
                    failures.append(error)

        client = threading.Thread(target=ask)
        client.start()
        for version in (2, 1) * 5:
            write_config(file, config_of(tmp_path, version, stable=version))
            until(lambda version=version: seen and seen[-1] == version)
        stop.set()
        client.join()
    assert failures == []


def test_a_label_whose_version_was_unloaded_is_not_found(tmp_path):
    put(tmp_path, 1)
    with running(toy(tmp_path, stable=1)) as repository:
        assert answering(repository, ModelSpec("toy", label="stable")) == 1
        put(tmp_path, 2)
        until(lambda: answering(repository) == 2)
        assert refusal(repository, ModelSpec("toy", label="stable")) == (
            "NOT_FOUND",
            "Servable not found for request: Specific(toy, 1)",
        )


def test_a_broken_config_file_changes_nothing_and_is_reported_once(tmp_path, caplog):
    put(tmp_path, 1)
    put(tmp_path, 2)
    file = tmp_path / "models.config"
    with configured(file, config_of(tmp_path, 1)) as repository:
        for text in ("model_config_list { config { nam", ""):
            caplog.clear()
            file.write_text(text)
            until(lambda: "the models stay as they are" in caplog.text)
            time.sleep(4 * POLL)
            assert caplog.text.count("the models stay as they are") == 1
            assert answering(repository) == 1
        file.unlink()
        until(lambda: "cannot read" in caplog.text)
        assert answering(repository) == 1
        write_config(file, config_of(tmp_path, 2))
        until(lambda: answering(repository) == 2)


def test_models_are_added_and_removed_by_the_config_file(tmp_path):
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 5)
    file, load = tmp_path / "models.config", Loader()
    with configured(file, config_of(tmp_path / "a", 1, name="a"), load=load) as repository:
        write_config(file, config_of(tmp_path / "a", 1, name="a"), config_of(tmp_path / "b", 5, name="b"))
        until(lambda: states(repository, "b") == {5: "AVAILABLE"})
        assert repository.names() == ["a", "b"]
        assert load.open_versions() == [1, 5]
        assert answering(repository, ModelSpec("b")) == 5
        write_config(file, config_of(tmp_path / "b", 5, name="b"))
        until(lambda: repository.names() == ["b"])
        until(lambda: load.open_versions() == [5])
        assert states(repository, "a") == {1: "END"}
        assert refusal(repository, ModelSpec("a")) == ("NOT_FOUND", "Servable not found for request: Latest(a)")


def test_a_model_added_before_its_folder_is_there_is_served_once_it_is(tmp_path):
    put(tmp_path / "a", 1)
    file = tmp_path / "models.config"
    with configured(file, config_of(tmp_path / "a", 1, name="a")) as repository:
        write_config(file, config_of(tmp_path / "a", 1, name="a"), config_of(tmp_path / "b", 5, name="b"))
        until(lambda: repository.names() == ["a", "b"])
        assert refusal(repository, ModelSpec("b"))[1] == "Servable not found for request: Latest(b)"
        put(tmp_path / "b", 5)
        until(lambda: states(repository, "b") == {5: "AVAILABLE"})


def test_another_base_path_takes_over_once_a_version_of_it_answers(tmp_path):
    put(tmp_path / "a", 3)
    put(tmp_path / "b", 3, "broken")
    file, load = tmp_path / "models.config", Loader()
    with configured(file, config_of(tmp_path / "a", 3), load=load) as repository:
        write_config(file, config_of(tmp_path / "b", 3))
        until(lambda: load.asked == [3, 3])
        assert answering(repository) == 3
        (tmp_path / "b" / "3" / "saved_model.pb").write_text("whole")
        until(lambda: len(load.loaded) == 2)
        until(lambda: load.open_versions() == [3])
        with repository.lease(TOY) as servable:
            assert servable.path == tmp_path / "b" / "3"


def test_the_config_file_is_followed_without_polling_the_folders(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    file = tmp_path / "models.config"
    with configured(file, config_of(tmp_path, 1), poll_seconds=0) as repository:
        write_config(file, config_of(tmp_path, 2))
        until(lambda: states(repository) == {2: "AVAILABLE", 1: "END"})


# --- stopping ---


def test_closing_frees_all_but_what_is_still_answering(tmp_path):
    put(tmp_path, 1)
    put(tmp_path, 2)
    load = Loader()
    with running(toy(tmp_path, VersionPolicy("all")), load=load) as repository:
        with repository.lease(ModelSpec("toy", 1)) as busy:
            repository.close()
            assert not busy.is_closed
            assert load.open_versions() == [1]
            assert states(repository) == {2: "END", 1: "UNLOADING"}
        assert refusal(repository, TOY)[0] == "NOT_FOUND"
