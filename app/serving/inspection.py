"""Look inside an export: its answers, its graph, its warm-up records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from app.serving.predictor import Predictor
from app.serving.verification import EXTRA_FOLDER, GOLDEN_FILE, TOLERANCE, WARMUP_FILE, Verification


def examine(version_folder: Path) -> Verification:
    """Load the export, ask it every golden text and replay its warm-up records."""
    predictor = Predictor(version_folder)
    golden = json.loads((version_folder / EXTRA_FOLDER / GOLDEN_FILE).read_text(encoding="utf-8"))
    answers = predictor.predict(golden["texts"])
    difference = float(np.abs(answers.probabilities - np.array(golden["probabilities"])).max())
    differing = sum(
        given != golden_label for given, golden_label in zip(answers.labels, golden["labels"], strict=True)
    )
    problems = list(_graph_problems(version_folder))
    if list(predictor.label_names) != golden["label_names"]:
        problems.append(
            f"label names are {list(predictor.label_names)}, evaluated were {golden['label_names']}"
        )
    if not difference <= TOLERANCE:
        problems.append(
            f"a probability differs by {difference:.2g} from the evaluated one (allowed: {TOLERANCE:g})"
        )
    if differing:
        problems.append(f"{differing} of {len(golden['texts'])} labels differ from the evaluated ones")
    return Verification(
        path=str(version_folder),
        golden_texts=len(golden["texts"]),
        largest_difference=difference,
        differing_labels=differing,
        signatures=sorted(predictor.signatures),
        warmup_records=_replay_warmup(predictor, version_folder / EXTRA_FOLDER / WARMUP_FILE),
        problems=problems,
    )


def graph_nodes(version_folder: Path) -> Iterator[node_def_pb2.NodeDef]:
    """Every operation in every function of a SavedModel."""
    saved_model = saved_model_pb2.SavedModel.FromString((version_folder / "saved_model.pb").read_bytes())
    for meta_graph in saved_model.meta_graphs:
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def


def _graph_problems(version_folder: Path) -> Iterator[str]:
    nodes = list(graph_nodes(version_folder))
    cudnn = sorted({node.op for node in nodes if "cudnn" in node.op.lower()})
    if cudnn:
        yield f"the graph holds {', '.join(cudnn)}, which only a GPU can run"
    devices = sorted({node.device for node in nodes if node.device})
    if devices:
        yield f"the graph is tied to the device {', '.join(devices)}"


def _replay_warmup(predictor: Predictor, path: Path) -> int:
    """Run every warm-up record as TensorFlow Serving would, and count them; an unreadable file raises."""
    count = 0
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        predictor.servable.run(request.model_spec.signature_name, inputs)
        count += 1
    return count
