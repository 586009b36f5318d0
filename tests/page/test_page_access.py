"""The page by keyboard alone, on a phone, in the dark, and to a screen reader."""

from __future__ import annotations

import itertools
import re

import pytest
from playwright.sync_api import Page, expect

CSV = b"text\n" + b"\n".join([b"great fun", b"dull", b"averylongwordwithoutanyplacetobreakit" * 20])

# Contrast as WCAG 2.2 defines it (success criterion 1.4.3), of every element that shows text of its own.
CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = (element) => {
    const colour = rgba(getComputedStyle(element).backgroundColor);
    return colour[3] === 255 ? colour : ground(element.parentElement);
  };
  const isSeen = (element) => element.checkVisibility() && element.closest('.unseen') === null;
  const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const texts = [...document.body.querySelectorAll('*')].filter((element) => isSeen(element) && hasText(element))
    .map((element) => [element.textContent.trim().slice(0, 30),
      ratio(rgba(getComputedStyle(element).color), ground(element)), 4.5]);
  const edges = [...document.querySelectorAll('textarea, select, input[type=file]')].filter(isSeen)
    .map((element) => [`edge of ${element.id}`,
      ratio(rgba(getComputedStyle(element).borderTopColor), ground(element.parentElement)), 3]);
  const fills = [...document.querySelectorAll('.fill')].filter(isSeen)
    .map((element) => ['bar', ratio(ground(element), ground(element.parentElement)), 3]);
  return [...texts, ...edges, ...fills];
}"""


def fill_everything(page: Page) -> None:
    """Bring up every part of the page but the dialog: two cards, an error, a file and its results."""
    page.get_by_label("Compare side by side").check()
    page.get_by_label("Text", exact=True).fill("great " + "averylongwordwithoutanyplacetobreakit" * 20)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("article")).to_have_count(2)
    page.get_by_label("CSV file").set_input_files({"name": "r.csv", "mimeType": "text/csv", "buffer": CSV})
    page.get_by_role("button", name="Label the rows").click()
    expect(page.locator("#file-said")).to_contain_text("3 rows answered")


def test_everything_goes_by_keyboard_alone(page: Page):
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()
    page.keyboard.type("dull")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".label")).to_have_text("positive")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Model and version")).to_be_focused()
    page.keyboard.type("reviews, version 1")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Compare side by side")).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Compared with")).to_be_focused()
    page.keyboard.type("reviews, version 2")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_text("They differ: negative against positive.")


def test_a_file_goes_by_keyboard_alone_and_the_place_is_kept(page: Page):
    page.on("filechooser", lambda _: None)  # from the start: it takes a moment until choosers are caught
    for _ in range(5):
        page.keyboard.press("Tab")
    expect(page.get_by_label("CSV file")).to_be_focused()
    with page.expect_file_chooser() as waiting:
        page.keyboard.press("Enter")
    waiting.value.set_files({"name": "r.csv", "mimeType": "text/csv", "buffer": CSV})
    expect(page.get_by_label("Column with the texts")).to_be_visible()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Label the rows")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#file-said")).to_contain_text("3 rows answered")
    expect(page.get_by_role("button", name="Label the rows")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Download the CSV with labels")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("region", name="Rows with their answers")).to_be_focused()


def test_the_place_of_the_keyboard_is_seen(page: Page):
    for _ in range(5):
        page.keyboard.press("Tab")
        style = page.evaluate("getComputedStyle(document.activeElement).outline")
        assert "solid 3px" in style or "3px solid" in style


@pytest.mark.parametrize("width", [360, 320])
def test_a_phone_needs_no_sideways_scrolling(page: Page, width: int):
    page.set_viewport_size({"width": width, "height": 740})
    fill_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    frame = page.get_by_role("region", name="Rows with their answers")
    assert width < 360 or frame.evaluate("frame => frame.scrollWidth === frame.clientWidth")
    cards = [card.bounding_box() for card in page.get_by_role("article").all()]
    assert cards[0]["x"] == cards[1]["x"]
    assert cards[0]["y"] < cards[1]["y"]
    controls = page.locator("main button:visible, main select:visible, main a:visible, main label.check:visible")
    assert all(control.bounding_box()["height"] >= 44 for control in controls.all())


def test_text_at_twice_its_size_fits(page: Page):
    page.set_viewport_size({"width": 640, "height": 740})
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    fill_everything(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 640


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(250, 248, 244)"), ("dark", "rgb(23, 22, 20)")])
def test_text_controls_and_bars_stand_out_in_light_and_dark(page: Page, scheme: str, ground: str):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    fill_everything(page)
    page.get_by_label("Compared with").select_option(label="numbers, latest (1)")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#ask-problem")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 30
    assert [entry for entry in measured if entry[1] < entry[2]] == []


def test_every_control_has_a_name_and_every_bar_a_value(page: Page):
    fill_everything(page)
    snapshot = page.locator("body").aria_snapshot()
    roles = r"(button|textbox|combobox|checkbox|link|meter|progressbar|table|region|list|heading)"
    parts = re.findall(rf"^\s*- '?{roles}\b(.*)$", snapshot, re.MULTILINE)
    assert {"button", "textbox", "combobox", "checkbox", "link", "meter", "table"} <= {role for role, _ in parts}
    assert [part for part in parts if not part[1].startswith(' "')] == []
    for meter in page.get_by_role("meter").all():
        assert 0 <= float(meter.get_attribute("aria-valuenow") or "nan") <= 1
        assert re.fullmatch(r"(\d rows?, )?[<>]?[\d.]+%", meter.get_attribute("aria-valuetext") or "")


def test_headings_make_an_outline_and_the_language_is_said(page: Page):
    fill_everything(page)
    levels = [
        int(tag[1]) for tag in page.locator(":is(h1, h2, h3):visible").evaluate_all("all => all.map(h => h.tagName)")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_answers_and_errors_are_read_out(page: Page):
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_have_text("There is no text yet.")
    fill_everything(page)
    statuses = page.get_by_role("status").all_inner_texts()
    assert [text.split(" ")[0] for text in statuses] == ["positive,", "3"]
