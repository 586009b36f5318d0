"""The peers of the accuracy table: linear models of scikit-learn, fastText and PyTorch.

Every peer gets the texts of our splits as they are. It learns from the training split, uses validation to choose its
settings or its epoch, and answers on test once. With `refit` the linear ones and fastText learn again, with the
settings that were chosen, from training and validation together, as is their custom.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peer_linear

from app.errors import RequestError
from data.splits import Splits

HERE = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class PeerAnswer:
    """Probabilities float[n, c] on test, and what they cost: user and system time of learning, the choice included."""

    probabilities: np.ndarray
    cpu_seconds: float
    parameters: int
    details: dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A system that is not ours, in a script of this folder. `package` has to be importable where it runs."""

    name: str
    title: str
    settings: dict[str, Any]
    run: Callable[[Splits, int, bool, Path | None], PeerAnswer]
    script: str
    deterministic: bool = False
    package: str | None = None
    can_refit: bool = True

    def missing(self, python: Path | None) -> str | None:
        """Say what is not there, None where all is."""
        if self.package is None:
            return None
        if python is None:
            return f"not installed: name an interpreter that has {self.package} with --peer-python"
        return None if importable(self.package, python) else f"not installed: no {self.package} in {python.name}"


@cache
def importable(package: str, python: Path) -> bool:
    """Whether an interpreter finds a package, without importing it.

    Raises:
        RequestError: there is no such interpreter.
    """
    question = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([str(python), "-c", question], check=False, cwd="/").returncode == 0
    except OSError as error:
        raise RequestError(f"--peer-python {python}: no interpreter that can be started ({error.strerror})") from None


def linear_peer(kind: str) -> Callable[[Splits, int, bool, Path | None], PeerAnswer]:
    """Train a linear model of scikit-learn in this process."""

    def run(splits: Splits, seed: int, refit: bool, python: Path | None) -> PeerAnswer:
        parts = [(list(part.texts), part.label_ids) for _, part in splits.items()]
        found = peer_linear.train(kind, *parts, refit=refit)
        return PeerAnswer(found.probabilities, found.cpu_seconds, found.parameters, found.details)

    return run


def worker_peer(script: str, *options: str) -> Callable[[Splits, int, bool, Path | None], PeerAnswer]:
    """Train with a script in another interpreter, which finds the splits in a folder and leaves its answers there."""

    def run(splits: Splits, seed: int, refit: bool, python: Path | None) -> PeerAnswer:
        if python is None:
            raise RequestError(f"{script} needs --peer-python")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for split, part in splits.items():
                content = {"texts": part.texts, "label_ids": part.label_ids.tolist()}
                (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
            command = [str(python), str(HERE / script), name, f"--classes={len(splits.label_names)}", f"--seed={seed}"]
            command += [*options, *(["--refit"] if refit else [])]
            ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}  # would mix our packages with those of the other one
            environment = {key: value for key, value in os.environ.items() if key not in ours}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{script} failed: {done.stderr.strip()[-800:]}")
            facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
            probabilities = np.load(folder / "probabilities.npy").astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)  # float32 rounds
        return PeerAnswer(probabilities, facts["cpu_seconds"], facts["parameters"], facts["details"])

    return run


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        *(
            Peer(name, title, peer_linear.SETTINGS[name], linear_peer(name), "peer_linear.py", deterministic=True)
            for name, title in (("tfidf", "TF-IDF + LR"), ("nblr", "log-count ratio + LR"))
        ),
        Peer(
            "fasttext",
            "fastText",
            {"version": 1},
            worker_peer("peer_fasttext.py"),
            "peer_fasttext.py",
            package="fasttext",
        ),
        *(
            Peer(
                f"torch-{model}",
                title,
                {"version": 1},
                worker_peer("peer_torch.py", f"--model={model}"),
                "peer_torch.py",
                package="torch",
                can_refit=False,  # validation is needed for the epoch
            )
            for model, title in (("lstm", "PyTorch LSTM"), ("transformer", "PyTorch Transformer"))
        ),
    )
}
"""By the name on the command line. `version` in the settings goes up when a worker learns otherwise: it runs anew."""
