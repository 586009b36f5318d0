"""Import TensorFlow without the lines its C++ side writes before anybody can turn them off."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import TensorFlow once, its start-up notices left out; what it says when it fails is shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with _stderr_held_back():
            import tensorflow  # noqa: F401


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Send file descriptor 2 into a file, and show the file only when an exception comes out."""
    # The notices are written by absl before its logging is set up, straight to the descriptor: sys.stderr and
    # TF_CPP_MIN_LOG_LEVEL do not reach them.
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held_back.seek(0)
            os.write(2, held_back.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
