"""The server with toy models, and Debian's chromium to look at its page with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.serving.model_config import ModelSettings, VersionPolicy
from app.serving.options import ServerOptions
from app.serving.server import serve_options_in_background
from page.gate import Gate
from page.toy_models import MODELS, save_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the models that `url` serves, every version of them."""
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="session")
def url(models: Path) -> Iterator[str]:
    settings = tuple(ModelSettings(name, models / name, VersionPolicy("all")) for name in MODELS)
    options = ServerOptions(settings, rest_api_port=0, grpc_port=None, file_system_poll_wait_seconds=0.1)
    with serve_options_in_background(options) as addresses:
        yield addresses.url


# Until it is closed, Playwright keeps an event loop running in this thread, and no other test may start one.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def page(chromium: Browser, url: str, gate: Gate) -> Iterator[Page]:
    """The page, loaded. At the end: nothing was asked of another host and nothing failed in the page itself."""
    with chromium.new_context(viewport={"width": 1000, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)  # the first page of a browser takes long on a busy machine
        gate.stand_before(page)
        watched = watch(page)
        page.goto(url)
        expect(page.get_by_label("Model and version").locator("option")).not_to_have_count(0)
        yield page
        # The browser reports refused requests too, which some tests provoke; the page says them in words.
        assert [text for text in watched.complaints if not text.startswith("Failed to load resource")] == []
        assert watched.hosts <= {urlsplit(url).netloc, ""}  # "" is the download's own blob


@dataclass
class Watch:
    """What a page asked for and complained of."""

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)


def watch(page: Page) -> Watch:
    watched = Watch()
    page.on("request", lambda request: watched.hosts.add(urlsplit(request.url).netloc))
    page.on("console", lambda message: watched.complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    return watched
