"""What a process imports that only runs exports, and what an import of TensorFlow leaves as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

WITHOUT_KERAS = """
import sys
from app.quiet import import_tensorflow
import_tensorflow(keras=False)
import app.serving.servable
from tensorflow.python.framework import op_def_registry
assert op_def_registry.get("FastBertNormalize") is not None
assert not {"keras", "tensorflow_text"} & set(sys.modules)
"""
AFTERWARDS = """
import keras
from data.pipeline import PipelineConfig, Tokenizer
from data.vocabulary import VocabularyConfig, learn_vocabulary
tokenizer = Tokenizer(learn_vocabulary(["a film"] * 5, VocabularyConfig(size=100)), PipelineConfig())
assert tokenizer(["a film"]).shape == (1, 3)
assert keras.ops.shape(tokenizer(["a"])) == (1, 2)
"""
WITH_KERAS = """
import sys
from app.quiet import import_tensorflow
import_tensorflow()
assert "keras" in sys.modules
"""
COLLECTOR = """
import gc
from app.quiet import import_tensorflow
searches = []
gc.callbacks.append(lambda phase, about: searches.append(phase))
import_tensorflow(keras=False)
assert not searches
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000
"""
COLLECTOR_AFTER_A_FAILURE = """
import gc, sys
from app.quiet import import_tensorflow
sys.modules["tensorflow.python"] = None
try:
    import_tensorflow(keras=False)
except ImportError:
    assert gc.isenabled()
    assert not gc.get_freeze_count()
else:
    raise AssertionError("imported all the same")
"""
COLLECTOR_THAT_WAS_OFF = """
import gc
from app.quiet import import_tensorflow
gc.disable()
import_tensorflow(keras=False)
assert not gc.isenabled()
"""
PYTEST_S_FIRST_PROCESS = """
import sys
sys.path.insert(0, "tests")
import conftest
assert "tensorflow" not in sys.modules
"""


def _check(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("program", [WITHOUT_KERAS, WITHOUT_KERAS + AFTERWARDS, WITH_KERAS])
def test_keras_is_left_out_where_only_exports_are_run_and_comes_when_it_is_asked_for(program: str) -> None:
    _check(program)


@pytest.mark.parametrize("program", [COLLECTOR, COLLECTOR_AFTER_A_FAILURE, COLLECTOR_THAT_WAS_OFF])
def test_no_garbage_is_looked_for_while_tensorflow_is_imported(program: str) -> None:
    _check(program)


def test_the_tests_load_tensorflow_only_where_one_runs() -> None:
    _check(PYTEST_S_FIRST_PROCESS)
