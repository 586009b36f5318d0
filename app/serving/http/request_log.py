"""Structured logs: one JSON object a line, on stderr; of a request its outcome, never its text or its token."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import unquote

logger = logging.getLogger("app.serving.requests")

# The status that stands in the log where the client left before its answer; nobody is sent it.
CLIENT_LEFT = 499

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_MODEL = re.compile(r"/v1/models/([^/:]+)", re.ASCII | re.IGNORECASE)
_LONGEST_PATH = 200
# Its own, so that whoever seeds the module's gets neither the same ids again nor their numbers disturbed.
_random = random.Random()

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JsonLines(logging.Formatter):
    """A log record as a line of JSON; what a record carries as `fields` stands beside time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)


def log_json_lines(stream: TextIO | None = None, *, level: int = logging.INFO) -> logging.Handler:
    """Send the log of this process to `stream` (stderr) as JSON; returns the handler, to take it off again.

    `level` is for our own loggers, requests among them; of libraries it is as before, warnings and worse.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    logging.getLogger("app").setLevel(level)
    return handler


def request_id(given: bytes | None) -> bytes:
    """The id that the client (or a proxy before us) gave, if it is fit for a log and a header, else a new one."""
    if given is not None and _SANE_ID.fullmatch(given):
        return given
    return b"%016x" % _random.getrandbits(64)


def log_request(
    *, started: float, request: bytes, method: str, path: str, status: int, request_bytes: int, response_bytes: int
) -> None:
    """Log one answered request. `started` is of `time.perf_counter`; `path` comes as it was sent, without its query.

    A query is left out because clients put tokens and texts there.
    """
    fields: dict[str, Any] = {
        "request_id": request.decode("ascii"),
        "method": method,
        "path": path if len(path) <= _LONGEST_PATH else path[:_LONGEST_PATH] + "...",
        "status": status,
        "milliseconds": round((time.perf_counter() - started) * 1e3, 3),
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
    }
    if match := _MODEL.match(path):
        fields["model"] = unquote(match[1])[:_LONGEST_PATH]
    _emit(logging.INFO, "request", fields)


def log_failure(request: bytes, error: BaseException) -> None:
    """Log an error that should not happen: its type and where it arose. Its message may quote a user's text."""
    stack = "".join(traceback.format_tb(error.__traceback__))
    fields = {"request_id": request.decode("ascii"), "error": type(error).__name__, "stack": stack}
    _emit(logging.ERROR, "a request failed inside the server", fields)


def _emit(level: int, message: str, fields: Mapping[str, Any]) -> None:
    if logger.isEnabledFor(level):
        # Made by hand: `logger.info` would look up the caller's file and line, which are always these.
        record = logging.LogRecord(logger.name, level, __file__, 0, message, None, None)
        record.fields = fields
        logger.handle(record)
