"""What a process imports that only runs exports."""

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


@pytest.mark.parametrize("program", [WITHOUT_KERAS, WITHOUT_KERAS + AFTERWARDS, WITH_KERAS])
def test_keras_is_left_out_where_only_exports_are_run_and_comes_when_it_is_asked_for(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
