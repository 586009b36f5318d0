"""Probes: `/healthz/live` says that the server runs, `/healthz/ready` that every model it serves answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.serving.http.limits import Message, Receive
from app.serving.readiness import ModelProbe
from app.serving.repository import ModelRepository

# An answer is given again for so long: probes, however many, cost one prediction a second and model.
CACHE_SECONDS = 1.0
# Models that take longer than this for one row each are not ready.
TIMEOUT_SECONDS = 5.0

Send = Callable[[Message], Awaitable[None]]


class Health:
    """The ASGI application under `/healthz/`."""

    def __init__(
        self,
        repository: ModelRepository,
        *,
        cache_seconds: float = CACHE_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._probe = ModelProbe(repository)
        self._cache_seconds = cache_seconds
        self._timeout_seconds = timeout_seconds
        # A thread of its own: probes wait for the models, not for a free thread of the server's.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        self._check: asyncio.Future[tuple[dict[str, list[str]], list[str]]] | None = None
        self._fresh_until = 0.0
        self._is_draining = False

    def begin_drain(self) -> None:
        """Be ready no more, from the next probe on: the server is stopping."""
        self._is_draining = True

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one probe, by GET or HEAD."""
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD"):
            await _answer(send, 405, {"error": f"{method} is not understood here; GET is"})
        elif path == "/healthz/live":
            await _answer(send, 200, {"status": "alive"})
        elif path == "/healthz/ready":
            await _answer(send, *await self.readiness())
        else:
            await _answer(send, 404, {"error": f"Not found: {path}. There are /healthz/live and /healthz/ready"})

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and body: 200 with the versions of each model, or 503 with what is wrong."""
        if self._is_draining:
            return 503, {"error": "The server is shutting down"}
        check = self._current_check()
        done, _ = await asyncio.wait([check], timeout=self._timeout_seconds)
        if not done:
            return 503, {"error": f"The models did not answer within {self._timeout_seconds:g} s"}
        models, faults = check.result()
        if faults:
            return 503, {"error": "; ".join(faults), "models": models}
        return 200, {"models": models}

    def _current_check(self) -> asyncio.Future[tuple[dict[str, list[str]], list[str]]]:
        """The check under way, or the last one while it is fresh: all probes share it."""
        check = self._check
        if check is None or (check.done() and time.monotonic() >= self._fresh_until):
            check = asyncio.get_running_loop().run_in_executor(self._thread, self._check_now)
            self._check = check
        return check

    def _check_now(self) -> tuple[dict[str, list[str]], list[str]]:
        result = self._probe.check()
        # Before the check counts as done: a probe in between would take it for stale.
        self._fresh_until = time.monotonic() + self._cache_seconds
        return result


async def _answer(send: Send, status: int, body: dict[str, Any]) -> None:
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
