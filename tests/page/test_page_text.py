"""One text in the page: asked, compared, refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import requests
from playwright.sync_api import Locator, Page, expect

from page.gate import BUSY, Gate
from page.toy_models import TOPICS, save_reviews


def ask(page: Page, text: str, model: str = "reviews, latest (2)", compared_with: str | None = None) -> None:
    page.get_by_label("Model and version").select_option(label=model)
    page.get_by_label("Compare side by side").set_checked(compared_with is not None)
    if compared_with is not None:
        page.get_by_label("Compared with").select_option(label=compared_with)
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Ask").click()


def problem(page: Page) -> Locator:
    return page.locator("#ask-problem")


def bars(card: Locator) -> dict[str, str]:
    expect(card.get_by_role("meter").first).to_be_visible()
    return {
        row.locator(".name").text_content() or "": row.locator("[role=meter]").get_attribute("aria-valuetext") or ""
        for row in card.locator(".bars li").all()
    }


def test_a_typed_text_gets_a_label_with_bars_the_version_and_the_time(page: Page):
    ask(page, "a great film")
    card = page.get_by_role("article")
    expect(card.get_by_role("heading")).to_have_text("reviews, version 2")
    expect(card.locator(".label")).to_have_text("positive")
    assert bars(card) == {"negative": "20.0%", "positive": "80.0%"}
    widths = [bar.bounding_box()["width"] for bar in card.locator(".fill").all()]
    assert abs(widths[1] / widths[0] - 4) < 0.1
    expect(card.locator(".facts")).to_have_text(re.compile(r"^Answered in \d[\d.]* m?s · 3 tokens$"))
    expect(page.locator("#ask-said")).to_have_text(re.compile(r"^positive, 80\.0%, by reviews version 2 in \d"))


def test_a_text_that_the_model_cuts_is_said_to_be_cut(page: Page):
    ask(page, "a film of more words than this model reads at once")
    expect(page.locator(".facts")).to_contain_text("11 tokens · longer than the model reads: a part was left out")


def test_the_version_that_is_chosen_answers(page: Page, gate: Gate):
    ask(page, "dull", "reviews, version 1")
    expect(page.get_by_role("article").get_by_role("heading")).to_have_text("reviews, version 1")
    expect(page.locator(".label")).to_have_text("negative")
    assert gate.predictions == [("/v1/models/reviews/versions/1:predict", 1)]


def test_two_versions_are_compared_side_by_side(page: Page):
    ask(page, "dull", "reviews, version 1", compared_with="reviews, latest (2)")
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.locator("#verdict")).to_have_text("They differ: negative against positive.")
    first, second = page.get_by_role("article").all()
    assert bars(first) == {"negative": "80.0%", "positive": "20.0%"}
    assert bars(second) == {"negative": "40.0%", "positive": "60.0%"}
    boxes = [first.bounding_box(), second.bounding_box()]
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] < boxes[1]["x"]


def test_the_comparison_suggests_the_version_before_and_says_how_far_apart_two_agreeing_are(page: Page):
    page.get_by_label("Compare side by side").check()
    expect(page.get_by_label("Compared with").locator("option:checked")).to_have_text("reviews, version 1")
    ask(page, "great", "reviews, version 2", compared_with="reviews, version 1")
    expect(page.locator("#verdict")).to_have_text("Both say positive; no probability differs by more than 10.0 points.")


def test_two_models_are_compared_and_one_failing_does_not_hide_the_other(page: Page):
    ask(page, "great", compared_with="numbers, latest (1)")
    expect(problem(page)).to_have_text(
        "numbers: numbers takes x (float). This page can only ask models that take one string."
    )
    expect(page.get_by_role("article")).to_have_count(1)
    expect(page.locator(".label")).to_have_text("positive")


def test_a_model_that_is_no_classifier_shows_its_outputs(page: Page):
    ask(page, "naïve\n<b>", "shout, latest (7)")
    card = page.get_by_role("article")
    expect(card.locator("dd")).to_have_count(2)
    outputs = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    assert outputs == {"length": "10", "upper": "NAïVE\n<B>"}
    expect(card.get_by_role("meter")).to_have_count(0)


def test_many_classes_go_by_probability_with_the_rest_behind_a_fold(page: Page):
    ask(page, "x", "topics, latest (1)")
    card = page.get_by_role("article")
    assert list(bars(card)) == [*reversed(TOPICS)]
    expect(card.get_by_role("meter", name="sport")).to_be_hidden()
    card.get_by_text("4 more classes").click()
    expect(card.get_by_role("meter", name="sport")).to_be_visible()


def test_what_a_person_types_and_what_a_model_says_stays_text(page: Page):
    ask(page, '<img src=x onerror="document.title=1">', "topics, latest (1)")
    page.get_by_text("4 more classes").click()
    expect(page.locator("blockquote")).to_have_text('<img src=x onerror="document.title=1">')
    expect(page.get_by_text(TOPICS[2])).to_be_visible()
    expect(page.locator("main img, main script")).to_have_count(0)
    expect(page).to_have_title("Valence")


def test_no_text_is_said_and_the_field_waits_for_one(page: Page, gate: Gate):
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_have_text("There is no text yet.")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()
    assert gate.predictions == []
    ask(page, "great")
    expect(problem(page)).to_be_hidden()


def test_the_servers_refusal_is_given_in_its_own_words(page: Page, gate: Gate):
    gate.refusals = [BUSY]
    ask(page, "great")
    expect(problem(page)).to_have_text(
        "The server cannot answer just now; try again in a moment (503): the queue is full"
    )
    expect(page.get_by_role("article")).to_have_count(0)


def test_the_latest_is_looked_up_again_where_it_gave_way_in_between_and_a_named_version_is_not(page: Page, gate: Gate):
    gone = (404, "Servable not found for request: Specific(reviews, 2)")
    gate.refusals = [gone]
    ask(page, "great")
    expect(page.locator(".label")).to_have_text("positive")
    expect(problem(page)).to_be_hidden()
    gate.refusals = [gone]
    ask(page, "great", "reviews, version 2")
    expect(problem(page)).to_contain_text(gone[1])


def test_a_server_that_is_gone_is_said_to_be_gone(page: Page):
    ask(page, "great")
    expect(page.get_by_role("article")).to_have_count(1)
    page.context.set_offline(True)
    ask(page, "dull")
    expect(page.locator(".problem:visible")).to_have_count(1)
    expect(problem(page)).to_contain_text("does not answer. Is it still running?")


def test_half_a_surrogate_pair_gets_an_answer(page: Page):
    page.get_by_label("Text", exact=True).evaluate("field => { field.value = 'great \\ud83d'; }")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".label")).to_have_text("positive")


def available(url: str) -> list[str]:
    (reviews, *_) = requests.get(f"{url}/page/models", timeout=10).json()["models"]
    return reviews["versions"]


def wait_until(page: Page, url: str, versions: list[str]) -> None:
    for _ in range(200):
        if available(url) == versions:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"the server has {available(url)}")


def test_the_latest_is_the_newest_when_asked_and_a_version_that_went_is_named(page: Page, url: str, models: Path):
    save_reviews(models / "reviews", 3, 0.7, 0.1)
    wait_until(page, url, ["3", "2", "1"])
    ask(page, "great", "reviews, latest (2)")
    expect(page.get_by_role("article").get_by_role("heading")).to_have_text("reviews, version 3")
    ask(page, "great", "reviews, version 3")
    shutil.rmtree(models / "reviews" / "3")
    wait_until(page, url, ["2", "1"])
    page.get_by_role("button", name="Ask").click()
    expect(problem(page)).to_have_text(re.compile(r"\(404\): Servable not found for request: Specific\(reviews, 3\)"))
    expect(page.locator("#first-model option:checked")).to_have_text("reviews, version 3 (gone)")
