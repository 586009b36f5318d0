"""The report in a browser, opened from disk with the network off."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from report.made import FORMULA, HOSTILE

ROWS = "#disagreements-table tbody tr"

# Everything that is read, and every line of a chart, with its contrast to the ground behind it and what it has to be.
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a] = rgba(getComputedStyle(e).backgroundColor);
      if (a === 255) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const texts = [...document.body.querySelectorAll('*')].filter((e) => hasText(e) && !e.closest('script, style'))
    .map((e) => [e.textContent.trim().slice(0, 30), rgba(e.closest('svg') ? getComputedStyle(e).fill
      : getComputedStyle(e).color), ground(e), 4.5]);
  const lines = [...document.querySelectorAll('.reach, .dot.after:not(.open), .curve.after, .axis, .zero')]
    .map((e) => [e.getAttribute('class'), rgba(e.matches('.dot') ? getComputedStyle(e).fill
      : getComputedStyle(e).stroke), ground(e), 3]);
  return [...texts, ...lines].map(([what, colour, behind, least]) => [what, ratio(colour, behind), least]);
}"""


SHOW_IN_FRAME = """html => {
  document.querySelector('iframe').src = URL.createObjectURL(new Blob([html], { type: 'text/html' }));
}"""


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"{ROWS}:visible > :nth-child({number})").all_inner_texts()


def test_the_verdict_and_the_forest_plot_are_on_the_first_screen(page: Page):
    expect(page.get_by_role("heading", level=1)).to_be_in_viewport()
    for row in page.locator("#differences .forest tbody tr").all():
        expect(row).to_be_in_viewport()
    assert page.evaluate("window.hacked") is None
    expect(page.locator("#disagreements-table")).to_contain_text(HOSTILE)


def test_a_click_sorts_and_a_second_one_turns_round(page: Page):
    heading = page.locator("#disagreements-table").get_by_role("columnheader", name="lstm")
    numbers = [float(cell.split()[-1]) for cell in column(page, 4)]
    for order, expected in (("descending", sorted(numbers, reverse=True)), ("ascending", sorted(numbers))):
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", order)
        assert [float(cell.split()[-1]) for cell in column(page, 4)] == expected
    assert page.locator("#disagreements-table [aria-sort]").count() == 1


def test_keys_sort_too_and_the_place_is_seen(page: Page):
    button = page.locator("#suspects-test").get_by_role("button", name="label", exact=True)
    button.focus()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_text("suggested")
    assert "solid" in focused.evaluate("element => getComputedStyle(element).outlineStyle")
    page.keyboard.press("Enter")
    cells = page.locator("#suspects-test tbody td:nth-child(3)").all_inner_texts()
    assert cells == sorted(cells)
    expect(page.locator("#suspects-test").get_by_role("columnheader", name="suggested")).to_have_attribute(
        "aria-sort", "ascending"
    )


def test_rows_are_chosen_by_who_is_right(page: Page):
    section = page.locator("#disagreements")
    every = len(column(page, 1))
    section.get_by_label("who is right").select_option("linear")
    chosen = column(page, 6)
    assert 0 < len(chosen) < every
    assert set(chosen) == {"linear"}
    expect(section.get_by_role("status")).to_have_text(f"{len(chosen)} of {every} rows")


def test_the_rows_that_are_shown_are_saved_as_csv(page: Page, tmp_path: Path):
    section = page.locator("#disagreements")
    section.get_by_label("label", exact=True).select_option(index=1)
    with page.expect_download() as download:
        section.get_by_role("button", name="Save these rows as CSV").click()
    assert download.value.suggested_filename == "disagreements.csv"
    download.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(column(page, 1))
    assert {row["new_label"] for row in rows} == {""}
    assert len({row["label"] for row in rows}) == 1
    assert all("'=HYPER" in row["text"] for row in rows if "HYPER" in row["text"])


def test_a_frame_that_may_not_save_gets_the_csv_as_text(chromium: Browser, report: Path):
    with chromium.new_context(offline=True) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        # As MLflow shows an HTML artifact.
        page.set_content("<iframe sandbox='allow-scripts' width='900' height='700'></iframe>")
        page.evaluate(SHOW_IN_FRAME, report.read_text(encoding="utf-8"))
        frame = page.frame_locator("iframe")
        section = frame.locator("#disagreements")
        section.get_by_role("button", name="Save these rows as CSV").click()
        area = section.get_by_label("to copy")
        expect(area).to_be_focused()
        rows = list(csv.reader(io.StringIO(area.input_value())))
        assert rows[0][0] == "text"
        assert f"'{FORMULA} 0" in [row[0] for row in rows]
        frame.get_by_role("link", name="Costs").click()
        expect(frame.get_by_role("heading", name="Costs")).to_be_in_viewport()
        assert complaints == []


@pytest.mark.parametrize("width", [375, 320])
def test_a_phone_needs_no_sideways_scrolling(page: Page, width: int):
    page.set_viewport_size({"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_stand_out_in_light_and_dark(page: Page, scheme: str):
    page.emulate_media(color_scheme=scheme)
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 500
    assert [entry for entry in measured if entry[1] < entry[2]] == []


def test_tables_and_charts_have_names(page: Page):
    assert page.get_by_role("table").count() == page.locator("table:has(caption)").count() > 10
    for chart in page.get_by_role("img").all():
        assert len(chart.get_attribute("aria-label") or "") > 20
    forest = page.locator("#differences").get_by_role("table")
    expect(forest.get_by_role("rowheader")).to_have_count(3)


def test_print_opens_what_is_folded_away(page: Page):
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
