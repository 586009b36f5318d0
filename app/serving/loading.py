"""Loading one version with nothing half done: whole, warm, or not at all and why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import RequestError
from app.serving.status import Code, ServingError
from app.serving.versions import SAVED_MODEL_FILE, Contents, folder_contents

if TYPE_CHECKING:
    from app.serving.servable import Servable

logger = logging.getLogger(__name__)


def load_whole(folder: Path, contents: Contents | None, load: Callable[[Path], Servable], *, warm_up: bool) -> Servable:
    """Load a version and warm it.

    Raises `ServingError` UNAVAILABLE when the folder does not hold `contents` in the end: what changed while it
    was read may be half of one thing and half of another. Raises besides whatever `load` and the warm-up do.
    """
    servable = load(folder)
    try:
        if warm_up:
            servable.warm_up()
        if folder_contents(folder) != contents:
            raise ServingError(Code.UNAVAILABLE, f"{folder} changed while it was being loaded")
    except BaseException:
        servable.close()
        raise
    return servable


def failure(error: Exception, folder: Path) -> tuple[Code, str]:
    """The code and the text of a failed load, for the status: TensorFlow's own code where one is at its bottom."""
    if not isinstance(error, RequestError | ServingError):
        logger.error("%s cannot be loaded", folder, exc_info=error)
    message = str(error) or type(error).__name__
    if not (folder / SAVED_MODEL_FILE).is_file():
        return Code.NOT_FOUND, message
    return _code(error), message


def _code(error: BaseException | None) -> Code:
    while error is not None:
        if isinstance(error, ServingError):
            return error.code
        number = getattr(error, "error_code", None)  # tf.errors.OpError; TensorFlow is not imported for its name
        if isinstance(number, int) and number in set(Code) - {Code.OK}:
            return Code(number)
        error = error.__cause__
    return Code.INTERNAL
