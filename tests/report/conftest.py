"""A report of made-up models on disk, and Debian's chromium, without a network, to look at it with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from app.compared import Compared
from app.report.files import write_report
from report.made import made_compared


@pytest.fixture(scope="session")
def compared() -> Compared:
    return made_compared(seeds=2)


@pytest.fixture(scope="session")
def report(compared: Compared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, with its JSON and CSV files beside it."""
    page = tmp_path_factory.mktemp("report") / "report.html"
    write_report(compared, page)
    return page


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
def page(chromium: Browser, report: Path) -> Iterator[Page]:
    """The report, opened from disk. At the end: it asked for nothing else, and nothing in it failed."""
    with chromium.new_context(viewport={"width": 1200, "height": 860}, offline=True) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)  # the first page of a browser takes long on a busy machine
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(report.as_uri())
        yield page
        assert complaints == []
        assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {report.as_uri()}
