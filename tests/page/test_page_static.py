"""What the server gives for the page, without a browser."""

from __future__ import annotations

import re

import pytest
import requests

from app.serving.http.page import FOLDER, public_paths

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def policy(answer: requests.Response) -> dict[str, str]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return dict(directive.split(" ", 1) for directive in directives)


def test_every_file_has_its_type_and_may_do_nothing_but_talk_to_its_own_server(url: str):
    assert len(public_paths()) == len(list(FOLDER.iterdir()))
    for path in public_paths():
        answer = requests.get(url + path, timeout=10)
        suffix = path.rpartition(".")[2] if path != "/" else "html"
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, TYPES[suffix]), path
        assert policy(answer)["default-src"] == "'none'"
        assert policy(answer)["script-src"] == policy(answer)["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_no_file_names_another_host_or_holds_a_script_or_style_within_the_markup():
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.", text), path
    markup = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", markup)


def test_no_script_writes_markup():
    for path in FOLDER.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Storage", path.read_text()
        )


def test_what_the_browser_has_is_not_sent_again(url: str):
    first = requests.get(url, timeout=10)
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = requests.get(url, headers={"If-None-Match": known}, timeout=10)
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert requests.get(url, headers={"If-None-Match": '"other"'}, timeout=10).content == first.content


def test_head_gives_the_headers_alone(url: str):
    answer = requests.head(url, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) == (FOLDER / "index.html").stat().st_size


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/page/none.js", 404, "Not found: /page/none.js. The API is under /v1/models/"),
        ("GET", "/page/..%2fpage.py", 404, "Not found: /page/../page.py. The API is under /v1/models/"),
        ("GET", "/v2", 404, "Not found: /v2. The API is under /v1/models/"),
        ("POST", "/", 405, "POST is not allowed here: /"),
        ("DELETE", "/page/models", 405, "DELETE is not allowed here: /page/models"),
    ],
)
def test_other_paths_and_methods_are_refused_in_words(url: str, method: str, path: str, status: int, error: str):
    answer = requests.request(method, url + path, timeout=10)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert policy(answer)["default-src"] == "'none'"


def test_the_models_are_listed_with_the_versions_that_are_available(url: str):
    answer = requests.get(f"{url}/page/models", timeout=10)
    assert answer.json()["models"] == [
        {"name": "reviews", "versions": ["2", "1"]},
        {"name": "topics", "versions": ["1"]},
        {"name": "shout", "versions": ["7"]},
        {"name": "numbers", "versions": ["1"]},
    ]
    assert answer.headers["Cache-Control"] == "no-store"
