"""Look inside an export with TensorFlow: its answers, its graph, its warm-up records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from app.errors import RequestError
from app.serving.calibration import (
    SETS_SIGNATURE,
    TEMPERATURE_NODE,
    THRESHOLD_NODE,
    calibration_problems,
    read_calibration,
)
from app.serving.golden import EXTRA_FOLDER, Golden, read_golden
from app.serving.parity import SAVED_MODEL, compare, keras_row, problems
from app.serving.predictor import Predictor
from app.serving.questions import questions
from app.serving.reading import read_reading
from app.serving.signatures import DEFAULT_SIGNATURE
from app.serving.verification import WARMUP_FILE, Verification

Answers = dict[str, dict[str, np.ndarray]]


def examine(version_folder: Path) -> Verification:
    """Load the export, ask it every golden text, run every signature and replay its warm-up records."""
    return examine_with_answers(version_folder)[0]


def examine_with_answers(version_folder: Path) -> tuple[Verification, Answers]:
    """The same, with what each signature answered: other roads are held against it."""
    predictor, golden = Predictor(version_folder), read_golden(version_folder)
    servable = predictor.servable
    asked = questions(predictor.signatures, golden)
    answers = {name: servable.run(name, inputs) for name, inputs in asked.items()}
    rows = [keras_row(golden), *compare(SAVED_MODEL, answers, golden)]
    warmup_records = servable.warm_up()
    evaluated = next(row for row in rows if (row.road, row.signature) == (SAVED_MODEL, DEFAULT_SIGNATURE))
    found = Verification(
        path=str(version_folder),
        golden_texts=len(golden.texts),
        largest_difference=math.inf if evaluated.largest_difference is None else evaluated.largest_difference,
        differing_labels=evaluated.differing,
        signatures=sorted(asked),
        warmup_records=warmup_records,
        problems=[
            *_graph_problems(version_folder),
            *_calibration_problems(version_folder, golden, SETS_SIGNATURE in asked),
            *_warmup_problems(warmup_records),
            *_reading_problems(version_folder),
            *problems(rows),
        ],
        roads=rows,
    )
    return found, answers


def _warmup_problems(records: int) -> Iterator[str]:
    if not records:
        yield f"{EXTRA_FOLDER}/{WARMUP_FILE} is missing or empty"


def _reading_problems(version_folder: Path) -> Iterator[str]:
    try:
        read_reading(version_folder)
    except RequestError as error:
        yield str(error)


def _calibration_problems(version_folder: Path, golden: Golden, has_sets: bool) -> Iterator[str]:
    constants: dict[str, set[float]] = {TEMPERATURE_NODE: set(), THRESHOLD_NODE: set()}
    for node in answering_nodes(version_folder):
        if node.op == "Const" and node.name in constants:
            constants[node.name].add(float(tf.make_ndarray(node.attr["value"].tensor)))
    yield from calibration_problems(read_calibration(version_folder), constants, golden, has_sets)


def answering_nodes(version_folder: Path) -> list[node_def_pb2.NodeDef]:
    """Return every operation that takes part in the answer of some signature, those in functions included.

    What saves and restores the variables is not among them: TensorFlow ties it to the CPU wherever a model runs.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((version_folder / "saved_model.pb").read_bytes())
    return [node for meta_graph in saved_model.meta_graphs for node in _reachable(meta_graph)]


def _reachable(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[node_def_pb2.NodeDef]:
    """Walk back from the outputs of all signatures, and into each function that is called on the way, once."""
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    waiting = list(_behind_outputs(meta_graph))
    while waiting:
        node = waiting.pop()
        yield node
        for name in [name for attribute in node.attr.values() for name in _called(attribute)]:
            if name in functions:
                waiting += functions.pop(name).node_def


def _behind_outputs(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[node_def_pb2.NodeDef]:
    """The nodes of the graph itself, which alone are told apart by name: each function has names of its own."""
    by_name = {node.name: node for node in meta_graph.graph_def.node}
    outputs = [info.name for signature in meta_graph.signature_def.values() for info in signature.outputs.values()]
    waiting, seen = [_node_name(output) for output in outputs], set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield by_name[name]
            waiting += [_node_name(tensor) for tensor in by_name[name].input]


def _called(attribute: attr_value_pb2.AttrValue) -> list[str]:
    return [function.name for function in (attribute.func, *attribute.list.func) if function.name]


def _node_name(tensor_name: str) -> str:
    return tensor_name.removeprefix("^").split(":")[0]


def _graph_problems(version_folder: Path) -> Iterator[str]:
    nodes = answering_nodes(version_folder)
    cudnn = sorted({node.op for node in nodes if "cudnn" in node.op.lower()})
    if cudnn:
        yield f"the graph holds {', '.join(cudnn)}, which only a GPU can run"
    devices = sorted({node.device for node in nodes if node.device})
    if devices:
        yield f"the graph is tied to the device {', '.join(devices)}"
