"""The embedded server's HTTP application: which part answers which path."""

from __future__ import annotations

from collections.abc import Callable

from app.serving.http.front import Application, Scope, Send
from app.serving.http.limits import Receive

METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Site:
    """The API under /v1/, the metrics, the health of the process, and the page for everything else."""

    def __init__(
        self,
        api: Application,
        *,
        health: Application,
        page: Application,
        exposition: Callable[[], bytes],
        metrics_path: str | None,
    ) -> None:
        self._api = api
        self._health = health
        self._page = page
        self._exposition = exposition
        self._metrics_path = metrics_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        path = scope["path"]
        if path[:4].lower() == "/v1/":
            await self._api(scope, receive, send)
        elif path == self._metrics_path:
            await self._metrics(send)
        elif path.startswith("/healthz/"):
            await self._health(scope, receive, send)
        else:
            await self._page(scope, receive, send)

    async def _metrics(self, send: Send) -> None:
        content = self._exposition()
        headers = [(b"content-type", METRICS_TYPE), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})
