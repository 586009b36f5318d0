"""Does an export answer as the classifier that was evaluated? Asked in a fresh process, as a server would load it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from app.errors import RequestError

EXTRA_FOLDER = "assets.extra"
GOLDEN_FILE = "golden.json"
WARMUP_FILE = "tf_serving_warmup_requests"
TOLERANCE = 1e-5


class VerificationError(RuntimeError):
    """The export does not answer as the evaluated classifier did, or holds what must not be in it.

    `verification` is what was found, None where the export could not be run at all.
    """

    def __init__(self, message: str, verification: Verification | None = None) -> None:
        super().__init__(message)
        self.verification = verification


@dataclass(frozen=True)
class Verification:
    """What was found: `largest_difference` between golden and served probabilities, and the problems, if any."""

    path: str
    golden_texts: int
    largest_difference: float
    differing_labels: int
    signatures: list[str]
    warmup_records: int
    problems: list[str]


def verify(version_folder: Path) -> Verification:
    """Load an export in a fresh process, run every signature, compare with its golden answers.

    Raises:
        RequestError: the folder is not an export with golden answers.
        VerificationError: naming every problem that was found.
    """
    if not (version_folder / "saved_model.pb").is_file():
        raise RequestError(
            f"{version_folder} holds no saved_model.pb. Expected a version folder: <exports>/<name>/<number>"
        )
    if not (version_folder / EXTRA_FOLDER / GOLDEN_FILE).is_file():
        raise RequestError(
            f"{version_folder} holds no {EXTRA_FOLDER}/{GOLDEN_FILE}, so there is nothing to compare with"
        )
    verification = _in_fresh_process(version_folder)
    if verification.problems:
        raise VerificationError(f"{version_folder}: " + "; ".join(verification.problems), verification)
    return verification


def _in_fresh_process(version_folder: Path) -> Verification:
    completed = subprocess.run(
        [sys.executable, "-m", "app.serving.verification", str(version_folder.resolve())],
        capture_output=True,
        text=True,
        # Without a GPU: an export has to run on a CPU too, and the parent may hold all of the GPU's memory.
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"},
        cwd=Path(__file__).parents[2],
    )
    if completed.returncode != 0:
        last = (completed.stderr.strip().splitlines() or ["no output"])[-1]
        raise VerificationError(f"{version_folder} cannot be loaded and run in a fresh process: {last}")
    found = json.loads(completed.stdout.splitlines()[-1])
    return Verification(**{**found, "path": str(version_folder)})


def main(version_folder: Path) -> None:
    """Examine one export and write a Verification as JSON to standard output."""
    from app.serving.inspection import examine

    sys.stdout.write(json.dumps(dataclasses.asdict(examine(version_folder))) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
