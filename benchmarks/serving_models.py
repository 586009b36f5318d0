"""What the serving benchmarks serve, and what it costs inside the process. Each function runs in a process of its own.

TensorFlow's threads in the process that makes the load would take time from the server that is measured.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

PROJECT = Path(__file__).parents[1]
TOY = "toy"
# Made up, in the lengths of the snippets that people write about films.
TEXTS = (
    "A small gem.",
    "By the end, I was looking for the exit.",
    "The cast does what it can with a script that never decides what it wants to be about.",
    "Warm, funny and quietly devastating, with two of the best performances of the year so far.",
    "It is not that the jokes are bad; there are hardly any, and those that there are come twice.",
    "Beautifully shot.",
    "I cannot remember when I last left a cinema so glad to be alive, and so ready to see the same film again.",
    "Two hours of people in expensive rooms explaining the plot to each other, and still nobody understands it.",
)
LONG_TEXT = " ".join(TEXTS * 12)

P = ParamSpec("P")
T = TypeVar("T")


def apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run a function of a module in a fresh process and return what it returns."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


def write_toy(base_path: Path) -> None:
    """Write version 1 of the toy: string[n] -> score float32[n], the sum of the embeddings of the text's words."""
    import tensorflow as tf

    module = tf.Module()
    module.table = tf.Variable(tf.random.stateless_normal([32_768, 16], seed=(0, 0)))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def score(text: tf.Tensor) -> dict[str, tf.Tensor]:
        words = tf.strings.split(text)
        ids = tf.strings.to_hash_bucket_fast(words.values, 32_768)
        vectors = tf.gather(module.table, ids)
        sums = tf.math.unsorted_segment_sum(vectors, words.value_rowids(), words.nrows())
        return {"score": tf.reduce_sum(sums, axis=1)}

    tf.saved_model.save(module, str(base_path / "1"), signatures={"serving_default": score})


def train(model: str, folder: Path) -> Path:
    """Train a model for one epoch on the embedded reviews, through the command line; return its version folder.

    How fast a model answers depends on its sizes, which are the defaults, and not on how well it learned.
    """
    artifacts = folder / "artifacts"
    command = [sys.executable, "train.py", model, "--name", "benchmark", "--set", "model.epochs=1"]
    environment = {**os.environ, "VALENCE_ARTIFACTS": str(artifacts.resolve())}
    subprocess.run(command, cwd=PROJECT, env=environment, stdout=sys.stderr, check=True)
    return newest_version(artifacts / "exports" / "benchmark")


def newest_version(path: Path) -> Path:
    """The version folder itself, or the highest one below."""
    if (path / "saved_model.pb").is_file():
        return path.resolve()
    versions = [child for child in path.iterdir() if child.name.isdecimal() and (child / "saved_model.pb").is_file()]
    if not versions:
        raise SystemExit(f"{path} holds no version folder (named by an integer, with a saved_model.pb)")
    return max(versions, key=lambda folder: int(folder.name)).resolve()


def save_for_mlflow(version: Path, folder: Path) -> None:
    """Save the export as `train` logs it with MLflow: the same loader, code, requirements and signature."""
    import importlib.metadata
    import warnings

    from app.tracking import SERVING_REQUIREMENTS, copy_serving_code, text_signature

    with warnings.catch_warnings(action="ignore"):
        import mlflow

        mlflow.pyfunc.save_model(
            path=str(folder),
            loader_module="app.serving.pyfunc",
            data_path=str(version),
            code_paths=[str(copy_serving_code(folder.with_name("code")))],
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVING_REQUIREMENTS],
            signature=text_signature(),
        )


def in_process_ms(version: Path, texts: Sequence[str], count: int) -> float:
    """Median milliseconds of `Servable.run` with one text, without a server."""
    import numpy as np

    from app.serving.servable import Servable

    servable = Servable(version)
    inputs = [{"text": np.array([text.encode()], object)} for text in texts]
    for request in inputs * 4:
        servable.run("serving_default", request)
    times = []
    for number in range(count):
        started = time.perf_counter()
        servable.run("serving_default", inputs[number % len(inputs)])
        times.append(1000 * (time.perf_counter() - started))
    servable.close()
    return statistics.median(times)


def grouping_ms(version: Path, rows: int, repeats: int) -> dict[str, Any]:
    """Median milliseconds of a request of many short texts, and with a long one among them; grouped or not."""
    import numpy as np

    from app.serving.reading import UNTOLD
    from app.serving.saved_model import read_meta_graph, read_signatures
    from app.serving.session import GraphSession
    from app.serving.slices import in_slices

    session = GraphSession(version)
    whole = session.signature(read_signatures(read_meta_graph(version))["serving_default"], 0)
    short = [TEXTS[row % len(TEXTS)].encode() for row in range(rows)]
    found: dict[str, Any] = {"rows": rows}
    for content, texts in (("short", short), ("short and one long", [*short[1:], LONG_TEXT.encode()])):
        for way, run in (("as they come", whole), ("grouped", in_slices(whole, UNTOLD))):
            found[f"{content}, {way}"] = _median_ms(run, {"text": np.array(texts, object)}, repeats)
    session.close()
    return found


def _median_ms(run: Callable[[Any], Any], inputs: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run(inputs)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[1:])
