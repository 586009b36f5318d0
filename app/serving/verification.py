"""Does an export answer as the classifier that was evaluated, wherever it runs? Asked in fresh processes."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import RequestError
from app.serving.array_text import Tensors, read_tensors
from app.serving.fresh_process import ProcessError, answer_of
from app.serving.golden import EXTRA_FOLDER, GOLDEN_FILE, Golden, read_golden
from app.serving.parity import C_API, RoadRow, compare, failed, problems
from app.serving.roads import Target, grpc_address, target
from app.serving.server_parity import server_rows
from app.serving.versions import SAVED_MODEL_FILE

__all__ = ["EXTRA_FOLDER", "GOLDEN_FILE", "WARMUP_FILE", "Verification", "VerificationError", "verify"]

WARMUP_FILE = "tf_serving_warmup_requests"


class VerificationError(RuntimeError):
    """The export does not answer as the evaluated classifier did, or holds what must not be in it.

    `verification` is what was found, None where the export could not be run at all.
    """

    def __init__(self, message: str, verification: Verification | None = None) -> None:
        super().__init__(message)
        self.verification = verification


@dataclass(frozen=True)
class Verification:
    """What was found: how the SavedModel's answers differ from the golden ones, every road's, and the problems.

    `largest_difference` is between probabilities, infinite where one of them is no number or none came.
    """

    path: str
    golden_texts: int
    largest_difference: float
    differing_labels: int
    signatures: list[str]
    warmup_records: int
    problems: list[str]
    roads: list[RoadRow]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it, which has no infinity."""
        difference = self.largest_difference if math.isfinite(self.largest_difference) else None
        return {**dataclasses.asdict(self), "largest_difference": difference}


def verify(version_folder: Path, url: str | None = None, grpc: str | None = None) -> Verification:
    """Load an export in fresh processes, run every signature, compare with its golden answers.

    It is loaded by TensorFlow for Python, and by its C API without Python. With `url`, http://host:port, the server
    there is asked too, over REST, and with `grpc`, host:port, over gRPC; and TensorFlow Serving itself where it is on
    the PATH.

    Raises:
        RequestError: the folder is not an export with golden answers, or an address is none.
        VerificationError: naming every problem that was found.
    """
    if not (version_folder / SAVED_MODEL_FILE).is_file():
        raise RequestError(
            f"{version_folder} holds no {SAVED_MODEL_FILE}. Expected a version folder: <exports>/<name>/<number>"
        )
    golden = read_golden(version_folder)
    server = _server(version_folder, url, grpc)
    found, reference = _in_fresh_processes(version_folder, golden)
    if server is not None:
        found = _with(found, server_rows(version_folder, server, grpc, golden, reference))
    if found.problems:
        raise VerificationError(f"{version_folder}: " + "; ".join(found.problems), found)
    return found


def answers_of_c_api(version_folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """What each signature answers in a process without TensorFlow's Python. Raises `ProcessError`."""
    return read_tensors(answer_of("app.serving.c_api", str(version_folder.resolve()))["answers"])


def _server(version_folder: Path, url: str | None, grpc: str | None) -> Target | None:
    if grpc is not None:
        grpc_address(grpc)
    if grpc is not None and url is None:
        raise RequestError(f"--grpc {grpc}: give the server's REST address too, with --url http://host:port")
    return None if url is None else target(url, version_folder)


def _in_fresh_processes(version_folder: Path, golden: Golden) -> tuple[Verification, Tensors]:
    with ThreadPoolExecutor() as pool:
        of_c_api = pool.submit(answers_of_c_api, version_folder)
        found, reference = _of_tensorflow(version_folder)
    try:
        rows = compare(C_API, of_c_api.result(), golden, reference)
    except ProcessError as error:
        rows = [failed(C_API, f"the SavedModel cannot be loaded and run without Python: {error}", found.golden_texts)]
    return _with(found, rows), reference


def _with(found: Verification, rows: list[RoadRow]) -> Verification:
    return dataclasses.replace(found, roads=[*found.roads, *rows], problems=[*found.problems, *problems(rows)])


def _of_tensorflow(version_folder: Path) -> tuple[Verification, Tensors]:
    try:
        told = answer_of("app.serving.inspection_process", str(version_folder.resolve()))
    except ProcessError as error:
        raise VerificationError(f"{version_folder} cannot be loaded and run in a fresh process: {error}") from error
    rows = [RoadRow(**row) for row in told["found"]["roads"]]
    found = Verification(**{**told["found"], "path": str(version_folder), "roads": rows})
    return found, read_tensors(told["answers"])
