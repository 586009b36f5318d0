"""The page at `/`: its static files, and the list of models, which TensorFlow Serving's contract has no route for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.serving.http.front import Scope, Send
from app.serving.http.limits import Receive
from app.serving.repository import ModelSpec
from app.serving.status import ServingError
from app.serving.versions import State, VersionStatus

FOLDER = Path(__file__).with_name("page")
MODELS_PATH = "/page/models"

# Nothing from another host, nothing inline, no form that leaves the page, no frame around it; and no string can
# become markup or code (trusted types), so that a text of a user or of a model stays text.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# The system's own table of types may lack some, or call a script something that `nosniff` then refuses.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Models(Protocol):
    """What the page wants of `ModelRepository`."""

    def names(self) -> Sequence[str]:
        """The models that are served now."""

    def statuses(self, spec: ModelSpec) -> Sequence[VersionStatus]:
        """A model's versions, newest first."""


@dataclass(frozen=True)
class _Answer:
    content: bytes
    headers: Mapping[str, str]
    status: int = 200


def public_paths() -> frozenset[str]:
    """The paths that have to answer without a token, since the page is what asks a person for it."""
    return frozenset(_read_files())


def make_page_app(models: Models) -> Page:
    """The page's application, for the models of a repository."""
    return Page(models, _read_files())


class Page:
    """An ASGI application: the page at `/`, its files under `/page/`, and what there is to ask at `/page/models`.

    The last is `{"models": [{"name": ..., "versions": ["2", "1"]}]}`: the versions that are available, newest
    first, as strings as in a status. Every other path is a 404, a method other than GET and HEAD a 405.
    """

    def __init__(self, models: Models, files: Mapping[str, _Answer]) -> None:
        self._models = models
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        answer = await self._answer(scope)
        headers = {**answer.headers, **SECURITY_HEADERS}
        if answer.status != 304:
            headers["Content-Length"] = str(len(answer.content))
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        content = b"" if scope["method"] == "HEAD" else answer.content
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: Scope) -> _Answer:
        path, method = scope["path"], scope["method"]
        if path not in self._files and path != MODELS_PATH:
            return _json({"error": f"Not found: {path}. The API is under /v1/models/"}, 404)
        if method not in ("GET", "HEAD"):
            return _json({"error": f"{method} is not allowed here: {path}"}, 405, {"Allow": "GET, HEAD"})
        if path == MODELS_PATH:
            # In a thread: the repository's lock may be taken for a moment.
            listed = await asyncio.to_thread(self._list_models)
            return _json({"models": listed}, headers={"Cache-Control": "no-store"})
        file = self._files[path]
        return _unchanged(file) if _has_it(scope, file) else file

    def _list_models(self) -> list[dict[str, object]]:
        return [{"name": name, "versions": self._available(name)} for name in self._models.names()]

    def _available(self, name: str) -> list[str]:
        try:
            statuses = self._models.statuses(ModelSpec(name))
        except ServingError:  # it was removed since its name was listed
            return []
        return [str(status.version) for status in statuses if status.state == State.AVAILABLE]


def _has_it(scope: Scope, file: _Answer) -> bool:
    """Whether the browser kept the file as it is, by `If-None-Match` (RFC 9110, section 13.1.2)."""
    given = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return not tags.isdisjoint({file.headers["ETag"], "*"})


def _unchanged(file: _Answer) -> _Answer:
    return _Answer(b"", {name: value for name, value in file.headers.items() if name != "Content-Type"}, 304)


def _json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> _Answer:
    # In ASCII: a path may hold halves of surrogate pairs, which have no UTF-8 form.
    return _Answer(
        json.dumps(document).encode("ascii"), {"Content-Type": "application/json", **(headers or {})}, status
    )


def _read_files() -> dict[str, _Answer]:
    """The page's files by the path they are asked by; they are small and stay in memory."""
    files = {path: _read(path) for path in FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
    return {"/" if path.name == "index.html" else f"/page/{path.name}": file for path, file in files.items()}


def _read(path: Path) -> _Answer:
    content = path.read_bytes()
    headers = {
        "Content-Type": _MEDIA_TYPES[path.suffix],
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        # Kept, but asked about each time: after an update no old script meets a new page.
        "Cache-Control": "no-cache",
    }
    return _Answer(content, headers)
