"""SavedModels through TensorFlow's C API, in processes that know nothing of TensorFlow's Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text

from app.errors import RequestError
from app.serving import c_api
from app.serving.array_text import read_tensors, write_tensors
from app.serving.bare_signatures import signatures_of
from app.serving.c_api import CSession
from app.serving.c_library import load_op_library
from app.serving.fresh_process import ProcessError, answer_of
from app.serving.saved_model import read_meta_graph, read_signatures
from app.serving.servable import Servable
from app.serving.status import ServingError
from app.serving.verification import answers_of_c_api

ROOT = Path(__file__).parents[1]
TEXT = tf.TensorSpec([None], tf.string, name="text")
# Short strings lie inside a TF_TString, long ones (from 23 bytes on) beside it.
TEXTS = ["", "a", "b\x00b", "Фильм 电影 😀", "exactly 22 bytes long.", "now 23 bytes long, long", "long " * 2_000]


class Toy(tf.Module):
    """Strings, numbers of many kinds, a variable and a table: what a SavedModel can hold."""

    def __init__(self) -> None:
        self.weights = tf.Variable([1.0, 2.0, 3.0])
        entries = tf.lookup.KeyValueTensorInitializer([b"a", b"b\x00b"], tf.constant([10, 20], tf.int64))
        self.table = tf.lookup.StaticHashTable(entries, -1)

    @tf.function(input_signature=[TEXT])
    def strings(self, text):
        pairs = tf.stack([text, tf.strings.join([text, "!"])], axis=1)
        return {"same": text, "pairs": pairs, "id": self.table.lookup(text), "bytes": tf.strings.length(text)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, name="x"),
            tf.TensorSpec([None], tf.int64, name="n"),
            tf.TensorSpec([None, None], tf.string, name="words"),
            tf.TensorSpec([], tf.bool, name="flag"),
            tf.TensorSpec([None], tf.bfloat16, name="half"),
        ]
    )
    def mixed(self, x, n, words, flag, half):
        total = tf.reduce_sum(x * self.weights, axis=1) * tf.cast(n, tf.float32)
        joined = tf.strings.reduce_join(words, axis=1)
        small = {"u8": tf.cast(n, tf.uint8), "i16": tf.cast(n, tf.int16), "f64": tf.cast(x, tf.float64)}
        return {"y": total, "joined": joined, "not": ~flag, "half": half * 2, "complex": tf.complex(x, -x), **small}


class Broken(tf.Module):
    """Signatures that do not answer."""

    @tf.function(input_signature=[TEXT])
    def abort(self, text):
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the graph gives up")]):
            return {"text": tf.identity(text)}

    @tf.function(input_signature=[TEXT])
    def leave(self, text):
        with tf.control_dependencies([tf.raw_ops.Abort(exit_without_error=True)]):
            return {"text": tf.identity(text)}

    @tf.function(input_signature=[TEXT])
    def refuse(self, text):
        with tf.control_dependencies([tf.debugging.assert_none_equal(text, "", message="no blank texts")]):
            return {"text": tf.identity(text)}


def saved(folder: Path, module: tf.Module, **signatures: object) -> Path:
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    module = Toy()
    folder = tmp_path_factory.mktemp("toy") / "1"
    return saved(folder, module, serving_default=module.strings, mixed=module.mixed)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def texts(values: list[str]) -> np.ndarray:
    return np.array([value.encode() for value in values], object)


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert bits(found[name]) == bits(array), name


def bits(array: np.ndarray) -> list[bytes] | bytes:
    return array.reshape(-1).tolist() if array.dtype == object else array.tobytes()


def test_every_signature_answers_as_the_session_of_python_does(toy, tmp_path):
    chance = np.random.default_rng(0)
    asked = {
        "serving_default": {"text": texts(TEXTS)},
        "mixed": {
            "x": chance.normal(size=(4, 3)).astype(np.float32),
            "n": np.array([0, -1, 2**40, 300]),
            "words": texts(["one", "two", "", "drei" * 9] * 2).reshape(4, 2),
            "flag": np.array(True),
            "half": np.array([0.5, np.inf, np.nan, 3], ml_dtypes.bfloat16),
        },
    }
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(write_tensors(asked)), encoding="utf-8")
    told = answer_of("app.serving.c_api", str(toy), str(file))
    assert told["version"] == tf.version.VERSION
    answers, servable = read_tensors(told["answers"]), Servable(toy)
    assert answers.keys() == asked.keys()
    for name, inputs in asked.items():
        assert_equal(answers[name], servable.run(name, inputs))
    servable.close()


def test_no_rows_get_no_rows(toy):
    session = CSession(toy)
    answer = session.run("serving_default", {"text": np.empty(0, object)})
    session.close()
    shapes = {name: array.shape for name, array in answer.items()}
    assert shapes == {"same": (0,), "pairs": (0, 2), "id": (0,), "bytes": (0,)}


def test_without_golden_texts_a_blank_row_is_asked(toy):
    answers = answers_of_c_api(toy)
    assert answers["serving_default"]["pairs"].tolist() == [[b"", b"!"]]
    assert answers["mixed"]["y"].tolist() == [0.0]
    assert answers["mixed"]["not"].tolist() is True


def test_golden_texts_are_asked_where_a_signature_takes_texts(toy, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(toy, folder)
    (folder / "assets.extra").mkdir()
    golden = {"label_names": ["x"], "texts": ["a", "b"], "labels": ["x", "x"], "probabilities": [[1.0], [1.0]]}
    (folder / "assets.extra" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    answers = answers_of_c_api(folder)
    assert answers["serving_default"]["same"].tolist() == [b"a", b"b"]
    assert answers["mixed"]["y"].shape == (1,)


def test_neither_tensorflow_nor_keras_is_imported(toy):
    code = (
        "import sys; from pathlib import Path; from app.serving.c_api import answers;"
        f"assert answers(Path({str(toy)!r}))['answers'];"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " ('keras', 'tensorflow', 'tensorflow_text', 'tensorflow_serving', 'app', 'mlflow')"
        " and not name.startswith('app')])"
    )
    ended = run_python(code)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "[]\n"


def test_a_process_that_has_imported_tensorflow_is_no_independent_check(toy):
    assert "tensorflow" in sys.modules
    with pytest.raises(SystemExit, match=r"tensorflow .*was imported"):
        c_api.main([str(toy)])


def test_signatures_read_without_tensorflow_are_those_of_tensorflow(toy):
    assert signatures_of(toy) == read_signatures(read_meta_graph(toy))


class Words(tf.Module):
    """Cuts texts into words with an operation of TensorFlow Text."""

    @tf.function(input_signature=[TEXT])
    def count(self, text):
        return {"words": tensorflow_text.WhitespaceTokenizer().tokenize(text).row_lengths()}


@pytest.fixture(scope="module")
def words_model(tmp_path_factory) -> Path:
    module = Words()
    return saved(tmp_path_factory.mktemp("words") / "1", module, serving_default=module.count)


def test_operations_of_tensorflow_text_run(words_model, tmp_path):
    asked = {"serving_default": {"text": texts(["one", "", "one two  three"])}}
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(write_tensors(asked)), encoding="utf-8")
    told = answer_of("app.serving.c_api", str(words_model), str(file))
    assert read_tensors(told["answers"])["serving_default"]["words"].tolist() == [1, 0, 3]


def test_a_missing_op_library_is_named(words_model):
    code = f"from pathlib import Path; from app.serving.c_api import CSession; CSession(Path({str(words_model)!r}), [])"
    ended = run_python(code)
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1
    assert "RequestError" in last
    assert "Op type not registered 'TFText>WhitespaceTokenizeWithOffsetsV2'" in last
    assert "op libraries loaded: none" in last


def test_an_op_library_that_does_not_load_is_named(tmp_path):
    library = tmp_path / "_ops.so"
    library.write_bytes(b"no library")
    with pytest.raises(RequestError, match=r"the op library .*_ops\.so does not load"):
        load_op_library(library)


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> dict[str, Path]:
    base, module = tmp_path_factory.mktemp("broken"), Broken()
    return {name: saved(base / name, module, **{name: getattr(module, name)}) for name in ("abort", "leave", "refuse")}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("abort", r"exit code -6, ended by SIGABRT: .*the graph gives up"),
        ("leave", r"exit code 0 without an answer"),
        ("refuse", r"exit code 1: signature 'refuse' does not run: .*no blank texts"),
    ],
)
def test_a_process_that_gives_no_answer_tells_how_it_ended(broken, name, reason):
    with pytest.raises(ProcessError, match=reason):
        answers_of_c_api(broken[name])


def damaged(toy: Path, folder: Path, file: str, content: bytes | None) -> Path:
    shutil.copytree(toy, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("saved_model.pb", None, "Could not find SavedModel"),
        ("saved_model.pb", b"\xff\xff\xff", "Read less bytes than requested"),
        ("variables/variables.index", b"no index", "too short"),
        ("variables/variables.data-00000-of-00001", b"", "Read less bytes than requested"),
    ],
)
def test_a_damaged_model_is_refused_with_the_reason(toy, tmp_path, file, content, reason):
    with pytest.raises(RequestError, match=f"cannot be loaded by the C API: .*{reason}"):
        CSession(damaged(toy, tmp_path / "1", file, content))


def test_a_model_without_its_variables_loads_and_does_not_run(toy, tmp_path):
    # TensorFlow takes a folder without this file for a model that has no variables.
    session = CSession(damaged(toy, tmp_path / "1", "variables/variables.index", None))
    with pytest.raises(ServingError, match="variable"):
        session.run("mixed", blank(session))
    session.close()


def test_what_a_signature_does_not_take_is_refused(toy):
    session = CSession(toy)
    for name, inputs in (
        ("nope", {}),
        ("serving_default", {}),
        ("serving_default", {"text": texts(["a"]), "other": texts(["b"])}),
    ):
        with pytest.raises(ServingError, match=r"not found in signature def|serving_default takes \['text'\]"):
            session.run(name, inputs)
    with pytest.raises(ServingError, match=r"(?i)shape|incompatible|dimension"):
        session.run("mixed", {**blank(session), "x": np.zeros((1, 4), np.float32)})
    session.close()


def blank(session: CSession) -> dict[str, np.ndarray]:
    return c_api.questions(session.signatures, None)["mixed"]


@pytest.mark.parametrize(
    "array",
    [
        np.array([[b"a", b"\xff\x00"], [b"", b"c" * 100]], object),
        np.empty((0, 3), object),
        np.array(b"one", object),
        np.array([1.5, np.nan, -np.inf], np.float32),
        np.array([[True, False]]),
        np.array([2**64 - 1], np.uint64),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array(1 + 2j),
        np.empty((2, 0), np.int8),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_come_through_text_bit_for_bit(array):
    text = json.dumps(write_tensors({"signature": {"output": array}}))
    assert_equal(read_tensors(json.loads(text))["signature"], {"output": array})
