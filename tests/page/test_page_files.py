"""A file of texts in the page: dropped or chosen, asked in batches, given back with labels."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from page.gate import BUSY, Gate

TEXTS = ["great,\nand funny", 'he said "great"', "dull", "", "Größe; 😀", "<b>great</b>"]

DROP = """([encoded, name]) => {
  const bytes = Uint8Array.from(atob(encoded), (sign) => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const drop = (type) => new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer });
  const wasTaken = !document.body.dispatchEvent(drop('dragover'));
  const isMarked = document.body.classList.contains('dragging');
  document.body.dispatchEvent(drop('drop'));
  return [wasTaken, isMarked, document.body.classList.contains('dragging')];
}"""


def table(rows: int) -> list[list[str]]:
    return [["id", "review"], *([str(row), TEXTS[row % len(TEXTS)]] for row in range(rows))]


def as_csv(records: list[list[str]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(records)
    return out.getvalue().encode()


def choose(page: Page, content: bytes, name: str = "reviews.csv") -> None:
    page.get_by_label("CSV file").set_input_files({"name": name, "mimeType": "text/csv", "buffer": content})


def start(page: Page) -> None:
    page.get_by_role("button", name="Label the rows").click()


def said(page: Page) -> Locator:
    return page.locator("#file-said")


def problem(page: Page) -> Locator:
    return page.locator("#file-problem")


def downloaded(page: Page) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download the CSV with labels").click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def records(content: bytes, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter, strict=True))


def test_a_dropped_file_comes_back_with_labels_in_batches_of_32_to_one_version(page: Page, gate: Gate):
    content = as_csv(table(70))
    assert page.evaluate(DROP, [base64.b64encode(content).decode(), "my.reviews.csv"]) == [True, True, False]
    expect(page.get_by_label("Column with the texts").locator("option:checked")).to_have_text("review")
    expect(page.locator("#first-text")).to_have_text("70 rows. The first text: “great, and funny”")
    start(page)
    expect(said(page)).to_contain_text("70 rows answered by reviews, version 2 in ")
    assert gate.predictions == [("/v1/models/reviews/versions/2:predict", rows) for rows in (32, 32, 6)]
    name, answer = downloaded(page)
    assert name == "my.reviews-labelled.csv"
    assert answer.startswith(b"id,")  # no byte order mark where there was none
    header, *rows = records(answer)
    assert header == ["id", "review", "label", "confidence", "probability_negative", "probability_positive"]
    assert [row[:2] for row in rows] == table(70)[1:]
    assert {row[2] for row in rows} == {"positive"}
    assert [float(row[5]) for row in rows[:3]] == pytest.approx([0.8, 0.8, 0.6])


def test_the_results_are_shown_as_text_with_how_often_each_label_was_given(page: Page):
    page.get_by_label("Model and version").select_option(label="reviews, version 1")
    choose(page, as_csv(table(120)))
    start(page)
    expect(said(page)).to_contain_text("120 rows answered by reviews, version 1")
    shares = page.locator("#shares li")
    expect(shares).to_have_text(["positive 60 rows, 50.0%", "negative 60 rows, 50.0%"])
    shown = page.get_by_role("table")
    expect(shown.get_by_role("rowheader")).to_have_count(100)
    expect(shown).to_contain_text("The first 100 of 120 rows; the download has all of them")
    expect(shown.get_by_role("row").nth(3)).to_have_text("3dullnegative80.0%")
    expect(shown.get_by_role("row").nth(6)).to_have_text("6<b>great</b>positive90.0%")


def test_a_byte_order_mark_is_no_part_of_a_name_and_comes_back(page: Page):
    mark = b"\xef\xbb\xbf"
    choose(page, mark + as_csv([["text"], ["great"]]))
    start(page)
    expect(said(page)).to_contain_text("1 row answered")
    _, answer = downloaded(page)
    assert answer.startswith(mark + b"text,label,confidence,")


def test_utf16_and_semicolons_of_a_spreadsheet_are_read(page: Page):
    choose(page, "\ufefftitle;text\nFilm;great\n".encode("utf-16-le"))
    start(page)
    expect(said(page)).to_contain_text("1 row answered")
    _, answer = downloaded(page)
    assert records(answer.removeprefix(b"\xef\xbb\xbf"), ";")[1][:3] == ["Film", "great", "positive"]


def test_a_column_that_is_taken_gives_way_and_another_column_can_be_picked(page: Page, gate: Gate):
    page.get_by_label("Model and version").select_option(label="reviews, version 1")
    choose(page, as_csv([["label", "title", "text"], ["5", "great", "dull"]]))
    page.get_by_label("Column with the texts").select_option(label="title")
    expect(page.locator("#first-text")).to_contain_text("The first text: “great”")
    start(page)
    expect(said(page)).to_contain_text("1 row answered")
    header, row = records(downloaded(page)[1])
    assert header[3:5] == ["predicted_label", "confidence"]
    assert row[:4] == ["5", "great", "dull", "positive"]


def test_a_file_without_names_is_read_from_its_first_row(page: Page):
    choose(page, b"great\ndull\n")
    expect(page.locator("#first-text")).to_contain_text("1 row.")
    page.get_by_label("First row holds the column names").uncheck()
    expect(page.locator("#first-text")).to_contain_text("2 rows. The first text: “great”")
    start(page)
    expect(said(page)).to_contain_text("2 rows answered")
    assert records(downloaded(page)[1])[0][:2] == ["column 1", "label"]


def test_a_model_that_is_no_classifier_gives_its_outputs_as_columns(page: Page):
    page.get_by_label("Model and version").select_option(label="shout, latest (7)")
    choose(page, as_csv([["text"], ["a,b"]]))
    start(page)
    expect(said(page)).to_contain_text("1 row answered by shout, version 7")
    expect(page.locator("#shares-block")).to_be_hidden()
    (header, row) = records(downloaded(page)[1])
    assert dict(zip(header, row, strict=True)) == {"text": "a,b", "length": "3", "upper": "A,B"}


BROKEN = {
    b"": "The file is empty.",
    b"text\n": "The file has one row, which holds the column names, and no texts.",
    b"text\ncaf\xe9\n": "reviews.csv is not UTF-8 text. Spreadsheets can save as “CSV UTF-8”.",
    b'text\n"great\n': "Line 2: a quote opens here and does not close.",
    b"a,b\n1,2\n3\n": "Line 3: 1 field where the first row has 2.",
}


def test_a_file_that_cannot_be_read_is_refused_in_words(page: Page, gate: Gate):
    for content, words in BROKEN.items():
        choose(page, content)
        expect(problem(page)).to_contain_text(words)
    choose(page, as_csv([["text"], ["great"]]))
    expect(problem(page)).to_be_hidden()
    assert gate.predictions == []


def test_a_busy_server_is_asked_again(page: Page, gate: Gate):
    gate.refusals = [BUSY] * 2
    choose(page, as_csv(table(40)))
    start(page)
    expect(said(page)).to_contain_text("40 rows answered")
    expect(problem(page)).to_be_hidden()


def test_a_stopped_run_keeps_what_was_answered(page: Page, gate: Gate):
    gate.held_after = 1
    choose(page, as_csv(table(70)))
    start(page)
    expect(page.locator("#progress-text")).to_have_text("32 of 70")
    page.get_by_role("button", name="Stop").click()
    expect(said(page)).to_contain_text("Stopped after 32 rows of 70, answered by reviews, version 2.")
    rows = records(downloaded(page)[1])[1:]
    assert [row[2] for row in rows] == ["positive"] * 32 + [""] * 38


def test_a_failure_names_the_rows_and_keeps_what_was_answered(page: Page, gate: Gate):
    gate.held_after = 1
    choose(page, as_csv(table(70)))
    start(page)
    expect(page.locator("#progress-text")).to_have_text("32 of 70")
    gate.refusals = [BUSY] * 10
    gate.open()
    expect(problem(page)).to_contain_text(
        "Rows 33 to 64: The server cannot answer just now; try again in a moment (503)"
    )
    expect(said(page)).to_contain_text("Stopped after 32 rows of 70")


def test_a_server_that_takes_fewer_rows_gets_fewer(page: Page, gate: Gate):
    gate.most_rows = 10
    choose(page, as_csv(table(20)))
    start(page)
    expect(said(page)).to_contain_text("20 rows answered")
    assert [rows for _, rows in gate.predictions] == [20, 10, 10]
