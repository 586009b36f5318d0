"""Look inside an export: its answers, its graph, its warm-up records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.framework import attr_value_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from app.serving.predictions import Predictions
from app.serving.predictor import Predictor
from app.serving.servable import Servable, blank_row
from app.serving.verification import EXTRA_FOLDER, GOLDEN_FILE, TOLERANCE, WARMUP_FILE, Verification


def examine(version_folder: Path) -> Verification:
    """Load the export, ask it every golden text and replay its warm-up records."""
    predictor = Predictor(version_folder)
    golden = json.loads((version_folder / EXTRA_FOLDER / GOLDEN_FILE).read_text(encoding="utf-8"))
    answers = predictor.predict(golden["texts"])
    difference = float(np.abs(answers.probabilities - np.array(golden["probabilities"])).max())
    differing = _differing_labels(answers, golden)
    _run_every_signature(predictor.servable)
    warmup_records = predictor.servable.warm_up()
    problems = list(_graph_problems(version_folder))
    if not warmup_records:
        problems.append(f"{EXTRA_FOLDER}/{WARMUP_FILE} is missing or empty")
    if list(predictor.label_names) != golden["label_names"]:
        problems.append(f"label names are {list(predictor.label_names)}, evaluated were {golden['label_names']}")
    if not difference <= TOLERANCE:
        problems.append(f"a probability differs by {difference:.2g} from the evaluated one (allowed: {TOLERANCE:g})")
    if differing:
        problems.append(f"{differing} of {len(golden['texts'])} labels differ from the evaluated ones")
    return Verification(
        path=str(version_folder),
        golden_texts=len(golden["texts"]),
        largest_difference=difference,
        differing_labels=differing,
        signatures=sorted(name for name in predictor.signatures if not name.startswith("__")),
        warmup_records=warmup_records,
        problems=problems,
    )


def _differing_labels(answers: Predictions, golden: dict[str, Any]) -> int:
    """Count the labels that are not the evaluated ones, near-ties aside: rounding may decide those either way."""
    runner_up, best = np.sort(np.array(golden["probabilities"]), axis=1)[:, -2:].T
    clear = best - runner_up > 2 * TOLERANCE
    return int((clear & (np.array(answers.labels) != np.array(golden["labels"]))).sum())


def _run_every_signature(servable: Servable) -> None:
    """Run each signature that can be called once on a blank row; one that cannot raises."""
    for name, signature in servable.signatures.items():
        if not name.startswith("__"):  # what TensorFlow writes for itself, to initialise the graph
            servable.run(name, blank_row(signature))


def answering_nodes(version_folder: Path) -> list[node_def_pb2.NodeDef]:
    """Return every operation that takes part in the answer of some signature, those in functions included.

    What saves and restores the variables is not among them: TensorFlow ties it to the CPU wherever a model runs.
    """
    saved_model = saved_model_pb2.SavedModel.FromString((version_folder / "saved_model.pb").read_bytes())
    return [node for meta_graph in saved_model.meta_graphs for node in _reachable(meta_graph)]


def _reachable(meta_graph: meta_graph_pb2.MetaGraphDef) -> Iterator[node_def_pb2.NodeDef]:
    """Walk back from the outputs of all signatures, and into each function that is called on the way, once."""
    by_name = {node.name: node for node in meta_graph.graph_def.node}
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    outputs = [info.name for signature in meta_graph.signature_def.values() for info in signature.outputs.values()]
    waiting, seen = [by_name[_node_name(output)] for output in outputs], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        waiting += [by_name[_node_name(name)] for name in node.input if _node_name(name) in by_name]
        for name in [name for attribute in node.attr.values() for name in _called(attribute)]:
            if name in functions:
                waiting += functions.pop(name).node_def


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
