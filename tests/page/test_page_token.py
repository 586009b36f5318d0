"""The page of a server that wants a token: it asks a person for it, and forgets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, expect

from app.serving.http.access import Access
from app.serving.http.page import public_paths
from app.serving.model_config import ModelSettings
from app.serving.options import ServerOptions
from app.serving.server import serve_options_in_background

TOKEN = "a-token-of-these-tests"


@pytest.fixture(scope="module")
def guarded(models: Path) -> Iterator[str]:
    options = ServerOptions(
        (ModelSettings("reviews", models / "reviews"),), rest_api_port=0, grpc_port=None, access=Access([TOKEN])
    )
    with serve_options_in_background(options) as addresses:
        yield addresses.url


def test_the_page_itself_needs_no_token_and_the_names_of_models_do(guarded: str):
    assert {requests.get(guarded + path, timeout=10).status_code for path in public_paths()} == {200}
    assert requests.get(f"{guarded}/page/models", timeout=10).status_code == 401


def test_a_token_is_asked_for_and_kept_in_memory_only(chromium: Browser, guarded: str):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(guarded)
        dialog = page.get_by_role("dialog", name="Token")
        field = page.get_by_label("Token for this server")
        expect(dialog).to_contain_text("This server asks for a token.")
        expect(field).to_be_focused()
        expect(field).to_have_attribute("type", "password")
        for given, words in [("", "Type the token"), ("ünsendable", "letters, digits"), ("wrong", "did not accept")]:
            field.fill(given)
            field.press("Enter")
            expect(dialog).to_contain_text(words)
        field.fill(f" {TOKEN} ")
        page.get_by_role("button", name="Use the token").click()
        expect(dialog).to_be_hidden()
        page.get_by_label("Text", exact=True).fill("great")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".label")).to_have_text("positive")
        kept = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, document.location.href]")
        assert kept == [0, 0, "", f"{guarded}/"]
        expect(field).to_have_value("")
        page.reload()
        expect(dialog).to_contain_text("This server asks for a token.")


def test_a_token_can_be_refused_and_asked_for_once_more(chromium: Browser, guarded: str):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(guarded)
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_have_text("The server asks for a token, and none was given.")
        page.get_by_label("Text", exact=True).fill("great")
        page.get_by_role("button", name="Ask").click()
        page.get_by_label("Token for this server").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator(".label")).to_have_text("positive")
        expect(page.get_by_role("alert")).to_have_count(0)
