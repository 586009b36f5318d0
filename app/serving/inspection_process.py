"""`python -m app.serving.inspection_process FOLDER`: look inside an export, without Keras.

Writes what was found, and the answers, as JSON to standard output.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from app.quiet import import_tensorflow
from app.serving.array_text import write_tensors


def main(version_folder: Path) -> None:
    """Examine one export; write what was found and the answers."""
    import_tensorflow(keras=False)
    from app.serving.inspection import examine_with_answers

    found, answers = examine_with_answers(version_folder)
    sys.stdout.write(json.dumps({"found": dataclasses.asdict(found), "answers": write_tensors(answers)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
