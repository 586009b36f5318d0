"""Import TensorFlow without the lines its C++ side writes before anybody can turn them off, and without waste."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator


def import_tensorflow(*, keras: bool = True) -> None:
    """Import TensorFlow once, its start-up notices left out; what it says when it fails is shown.

    Args:
        keras: whether Keras comes with it. To run an export does without it, and starts in three fifths of the time.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" not in sys.modules:
        with _stderr_held_back(), _without_collector(), contextlib.nullcontext() if keras else _without_keras():
            import tensorflow  # noqa: F401


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Leave out Python's search for garbage, which goes through hundreds of thousands of new objects again and again.

    It is a fifth of the import's time, and finds next to nothing. What is there afterwards stays for good, so later
    searches pass over it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Let the import that ends TensorFlow's own fail, as it may; what imports Keras afterwards still finds it."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # Python's way to say that there is no such module
    try:
        yield
    finally:
        del sys.modules["keras"]


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
