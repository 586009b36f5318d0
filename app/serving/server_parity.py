"""Servers held against the golden answers: one that is running, over REST and gRPC, and TensorFlow Serving itself."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.serving.array_text import Tensors
from app.serving.bare_signatures import signatures_of
from app.serving.engines import MODEL_SERVER
from app.serving.golden import Golden
from app.serving.parity import GRPC, REST, TENSORFLOW_SERVING, RoadRow, compare, failed
from app.serving.questions import questions
from app.serving.roads import Ask, RoadError, Target, ask_all, grpc_address, model_server, rest
from app.serving.signatures import Signature


def server_rows(
    version_folder: Path, server: Target, grpc: str | None, golden: Golden, reference: Tensors
) -> list[RoadRow]:
    """Ask the server over REST, over gRPC where its address is given, and a TensorFlow Serving that is on the PATH."""
    signatures = signatures_of(version_folder)
    asking = _Asking(signatures, questions(signatures, golden), golden, reference)
    rows = asking.rows(REST, rest(server, signatures))
    if grpc is not None:
        rows += asking.over_grpc(GRPC, grpc, server)
    if shutil.which(MODEL_SERVER):
        rows += _of_tensorflow_serving(version_folder, asking)
    return rows


def _of_tensorflow_serving(version_folder: Path, asking: _Asking) -> list[RoadRow]:
    try:
        with model_server(version_folder) as (address, model):
            return asking.over_grpc(TENSORFLOW_SERVING, address, model)
    except RoadError as error:
        return [failed(TENSORFLOW_SERVING, str(error), len(asking.golden.texts))]


@dataclass(frozen=True)
class _Asking:
    """What is asked, and what the answers are held against."""

    signatures: Mapping[str, Signature]
    questions: Tensors
    golden: Golden
    reference: Tensors

    def rows(self, road: str, ask: Ask) -> list[RoadRow]:
        """Ask everything over one road; a signature that gives no answer has a row that says why."""
        answers, failures = ask_all(ask, self.questions)
        silent = [failed(road, reason, self._texts(name), name) for name, reason in failures.items()]
        return [*compare(road, answers, self.golden, self.reference), *silent]

    def over_grpc(self, road: str, address: str, model: Target) -> list[RoadRow]:
        """Ask everything over gRPC."""
        # The stubs come with all of TensorFlow, which nobody waits for who does not ask over gRPC.
        from app.serving.grpc_road import grpc_road

        place, tls = grpc_address(address)
        with grpc_road(place, model, self.signatures, tls=tls, wait=place.startswith("unix:")) as ask:
            return self.rows(road, ask)

    def _texts(self, signature: str) -> int:
        return max((len(array) for array in self.questions[signature].values() if array.ndim), default=1)
