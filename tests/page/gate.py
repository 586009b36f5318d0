"""Between the browser and the server: remembers what the page asks, and refuses or holds it where a test wants that."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route

BUSY = (503, "the queue is full")


@dataclass
class Gate:
    """What becomes of the page's requests to predict."""

    refusals: list[tuple[int, str]] = field(default_factory=list)  # status and words for the next ones
    held_after: int | None = None  # after so many the next ones wait for `open`
    most_rows: int = 1000  # a request of more is refused as TensorFlow's batching refuses it
    predictions: list[tuple[str, int]] = field(default_factory=list)  # asked of serving_default: path and rows
    _held: list[Route] = field(default_factory=list)

    def stand_before(self, page: Page) -> None:
        page.route(lambda url: url.endswith(":predict"), self._pass)

    def open(self) -> None:
        """Let those that wait pass, and all that follow."""
        self.held_after = None
        for route in self._held:
            self._pass_on(route)
        self._held.clear()

    def _pass(self, route: Route) -> None:
        document = json.loads(route.request.post_data or "")
        if document["signature_name"] == "serving_default":
            self.predictions.append((urlsplit(route.request.url).path, len(document["instances"])))
        if self.held_after is not None and len(self.predictions) > self.held_after:
            self._held.append(route)
        else:
            self._pass_on(route)

    def _pass_on(self, route: Route) -> None:
        rows = len(json.loads(route.request.post_data or "")["instances"])
        if self.refusals:
            _refuse(route, *self.refusals.pop(0))
        elif rows > self.most_rows:
            _refuse(route, 400, f"Task size {rows} is larger than maximum input batch size {self.most_rows}")
        else:
            route.continue_()


def _refuse(route: Route, status: int, words: str) -> None:
    route.fulfill(status=status, json={"error": words}, headers={"Retry-After": "0.1"})
