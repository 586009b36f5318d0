"""Real SavedModels, whole and damaged: what takes over and what ends with which reason."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from app.serving.model_config import ModelSettings
from app.serving.repository import ModelRepository, ModelSpec
from app.serving.servable import WARM_UP_RECORDS, Servable
from app.serving.status import Code
from app.serving.versions import VersionStatus

TOY = ModelSpec("toy")
PATIENCE = 60  # seconds until a test gives up waiting
ANY_BUT_OK = set(Code) - {Code.OK}
TEXTS = np.array([b"a", b"four"], object)


class Toy(tf.Module):
    """Says which version it is, from a variable, and how long each text is."""

    def __init__(self, version: int) -> None:
        self.weights = tf.Variable(tf.fill([100_000], float(version)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def classify(self, text):
        length = tf.strings.length(text)
        version = tf.reduce_max(self.weights) * tf.ones_like(length, tf.float32)
        return {"version": version, "length": length}


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[int, Path]:
    """Two whole versions, to be copied."""
    folder = tmp_path_factory.mktemp("exports")
    for version in (1, 2):
        module = Toy(version)
        tf.saved_model.save(module, str(folder / str(version)), signatures={"serving_default": module.classify})
    return {version: folder / str(version) for version in (1, 2)}


@contextmanager
def serving(base_path: Path) -> Iterator[ModelRepository]:
    repository = ModelRepository([ModelSettings("toy", base_path)], Servable, poll_seconds=0.05)
    repository.start()
    try:
        yield repository
    finally:
        repository.close()


def put(source: Path, folder: Path, damage: Callable[[Path], None]) -> None:
    hidden = folder.with_name(f"writing-{folder.name}")
    shutil.copytree(source, hidden)
    damage(hidden)
    hidden.rename(folder)


def answered_version(repository: ModelRepository) -> int:
    with repository.lease(TOY) as servable:
        answer = servable.run("serving_default", {"text": TEXTS})
    assert answer["length"].tolist() == [1, 4]
    first, second = answer["version"].tolist()
    assert first == second
    return int(first)


def ended(repository: ModelRepository) -> VersionStatus:
    """The status of version 2 once its load has come to an end."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        status = repository.statuses(TOY)[0]
        if status.version == 2 and status.state in ("END", "AVAILABLE"):
            return status
        time.sleep(0.02)
    raise AssertionError("version 2 was not tried in time")


def leave_whole(folder: Path) -> None:
    assert (folder / "saved_model.pb").is_file()


def take_the_graph_away(folder: Path) -> None:
    (folder / "saved_model.pb").unlink()


def write_garbage(folder: Path) -> None:
    (folder / "saved_model.pb").write_bytes(b"\xff not a protobuf")


def cut_the_graph(folder: Path) -> None:
    file = folder / "saved_model.pb"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_the_variables(folder: Path) -> None:
    (file,) = folder.glob("variables/variables.data-*")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def alter_the_variables(folder: Path) -> None:
    (file,) = folder.glob("variables/variables.data-*")
    values = bytearray(file.read_bytes())
    values[len(values) // 2] ^= 0xFF
    file.write_bytes(bytes(values))


def take_the_variables_away(folder: Path) -> None:
    shutil.rmtree(folder / "variables")


def use_an_unknown_op(folder: Path) -> None:
    file = folder / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    nodes = [node for f in saved_model.meta_graphs[0].graph_def.library.function for node in f.node_def]
    (node,) = [node for node in nodes if node.op == "StringLength"]
    node.op = "NoSuchOp"
    file.write_bytes(saved_model.SerializeToString())


def warm_up_with(signature: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        request = predict_pb2.PredictRequest(
            model_spec=model_pb2.ModelSpec(name="toy", signature_name=signature),
            inputs={"text": tf.make_tensor_proto([b"a"])},
        )
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
        records = folder / WARM_UP_RECORDS
        records.parent.mkdir()
        with tf.io.TFRecordWriter(str(records)) as writer:
            writer.write(log.SerializeToString())

    return write


@pytest.mark.parametrize("change", [leave_whole, warm_up_with("serving_default")])
def test_a_whole_version_takes_over(exports, tmp_path, change):
    put(exports[1], tmp_path / "1", leave_whole)
    with serving(tmp_path) as repository:
        assert answered_version(repository) == 1
        put(exports[2], tmp_path / "2", change)
        assert ended(repository).state == "AVAILABLE"
        assert answered_version(repository) == 2


@pytest.mark.parametrize(
    ("damage", "code", "reason"),
    [
        (take_the_graph_away, Code.NOT_FOUND, "saved_model.pb"),
        (write_garbage, Code.INTERNAL, "is damaged"),
        (cut_the_graph, Code.INTERNAL, "is damaged"),
        (cut_the_variables, Code.OUT_OF_RANGE, "cannot load"),
        (alter_the_variables, Code.DATA_LOSS, "cannot load"),
        (take_the_variables_away, Code.INTERNAL, "cannot load"),
        (use_an_unknown_op, Code.NOT_FOUND, "Op type not registered 'NoSuchOp'"),
        (warm_up_with("nope"), ANY_BUT_OK, "record 1: warm-up failed"),
    ],
)
def test_a_damaged_version_ends_with_the_reason_while_the_old_one_serves(exports, tmp_path, damage, code, reason):
    put(exports[1], tmp_path / "1", leave_whole)
    with serving(tmp_path) as repository:
        put(exports[2], tmp_path / "2", damage)
        status = ended(repository)
        assert status.state == "END"
        assert status.code in (code if isinstance(code, set) else {code})
        assert reason in status.message
        assert answered_version(repository) == 1


COPY = """
import sys
from pathlib import Path
source, target = map(Path, sys.argv[1:3])
for file in sorted((path for path in source.rglob("*") if path.is_file()), reverse="reverse" in sys.argv):
    copy = target / file.relative_to(source)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.open("wb", buffering=0) as out:
        for start in range(0, file.stat().st_size, 4096):
            print(copy.relative_to(target), start, flush=True)
            sys.stdin.readline()
            out.write(file.read_bytes()[start : start + 4096])
"""


def kill_a_copy(source: Path, target: Path, at: str, *order: str) -> None:
    """Copy in another process, which is killed with SIGKILL when it is some way into the file named `at`."""
    command = [sys.executable, "-c", COPY, str(source), str(target), *order]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            file, start = line.split()
            if Path(file).name.startswith(at) and int(start) >= 4096:
                process.kill()
                break
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == -9


@pytest.mark.parametrize(
    ("at", "order"),
    [("saved_model.pb", []), ("variables.data", []), ("variables.data", ["reverse"]), ("saved_model.pb", ["reverse"])],
)
def test_a_copy_that_was_killed_leaves_the_last_whole_version_to_the_next_start(exports, tmp_path, at, order):
    shutil.copytree(exports[1], tmp_path / "1")
    kill_a_copy(exports[2], tmp_path / "2", at, *order)
    with serving(tmp_path) as repository:
        assert answered_version(repository) == 1
        assert [(status.version, status.state) for status in repository.statuses(TOY)] == [
            (2, "END"),
            (1, "AVAILABLE"),
        ]
        shutil.copytree(exports[2], tmp_path / "2", dirs_exist_ok=True)
        end = time.monotonic() + PATIENCE
        while answered_version(repository) != 2:
            assert time.monotonic() < end
