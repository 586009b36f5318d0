"""The page at `/`: its static files, and the list of models, which TensorFlow Serving's contract has no route for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

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
class _StaticFile:
    content: bytes
    headers: dict[str, str]

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it already."""
        known = (tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(","))
        if not {self.headers["ETag"], "*"}.isdisjoint(known):
            headers = {name: value for name, value in self.headers.items() if name != "Content-Type"}
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=self.headers)


def public_paths() -> frozenset[str]:
    """The paths that have to answer without a token, since the page is what asks a person for it."""
    return frozenset(_read_files())


def make_page_app(models: Models) -> Starlette:
    """An ASGI application with the page at `/`, its files under `/page/`, and the models at `/page/models`.

    `models` is the repository. `/page/models` gives `{"models": [{"name": ..., "versions": ["2", "1"]}]}`: the
    versions that are available, newest first, as strings as in a status. Every other path is a 404.
    """

    def list_models(request: Request) -> Response:
        listed = [{"name": name, "versions": _available(models, name)} for name in models.names()]
        return JSONResponse({"models": listed}, headers={"Cache-Control": "no-store", **SECURITY_HEADERS})

    routes = [Route(path, file.answer) for path, file in _read_files().items()]
    errors: dict[int, ExceptionHandler] = {404: _refuse, 405: _refuse}
    return Starlette(routes=[*routes, Route(MODELS_PATH, list_models)], exception_handlers=errors)


def _available(models: Models, name: str) -> list[str]:
    try:
        statuses = models.statuses(ModelSpec(name))
    except ServingError:  # it was removed since its name was listed
        return []
    return [str(status.version) for status in statuses if status.state == State.AVAILABLE]


def _read_files() -> dict[str, _StaticFile]:
    """The page's files by the path they are asked by; they are small and stay in memory."""
    files = {path: _read(path) for path in FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
    return {"/" if path.name == "index.html" else f"/page/{path.name}": file for path, file in files.items()}


def _read(path: Path) -> _StaticFile:
    content = path.read_bytes()
    headers = {
        "Content-Type": _MEDIA_TYPES[path.suffix],
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        # Kept, but asked about each time: after an update no old script meets a new page.
        "Cache-Control": "no-cache",
        **SECURITY_HEADERS,
    }
    return _StaticFile(content, headers)


async def _refuse(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    path = request.url.path
    if status == 405:
        words, headers = f"{request.method} is not allowed here: {path}", {"Allow": "GET, HEAD"}
    else:
        words, headers = f"Not found: {path}. The API is under /v1/models/", {}
    return JSONResponse({"error": words}, status, headers={**headers, **SECURITY_HEADERS})
