"""The page's CSV reader and writer, in the browser, against Python's csv module."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

PIECES = ["a", "great", '"', '""', ",", ";", "\t", "\n", "\r\n", "\r", " ", "", "é", "😀", "\ufeff", "=1+1", "'"]

PARSE = """async ([text, delimiter]) => {
  const { parseCsv } = await import('/page/csv.js');
  try { return parseCsv(text, delimiter); } catch (error) { return error.message; }
}"""


@pytest.fixture(scope="module")
def script_page(chromium: Browser, url: str) -> Iterator[Page]:
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(url)
        yield page


def in_browser(page: Page, script: str, argument: Any) -> Any:
    return page.evaluate(script, argument)


def made_up_tables(count: int) -> list[list[list[str]]]:
    chance = random.Random(7)

    def field() -> str:
        return "".join(chance.choices(PIECES, k=chance.randrange(4)))

    return [
        [[field() for _ in range(columns)] for _ in range(chance.randint(1, 5))]
        for columns in chance.choices(range(1, 5), k=count)
    ]


def written(table: list[list[str]], **options: Any) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, **options).writerows(table)
    return out.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_python_writes_is_read_as_it_was(script_page: Page, delimiter: str, end: str):
    tables = made_up_tables(200)
    texts = [written(table, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL) for table in tables]
    script = """async ([texts, delimiter]) => {
      const { parseCsv } = await import('/page/csv.js');
      return texts.map((text) => parseCsv(text, delimiter).map(({ fields }) => fields));
    }"""
    assert in_browser(script_page, script, [texts, delimiter]) == tables


def test_what_the_page_writes_python_reads_as_it_was(script_page: Page):
    tables = made_up_tables(300)
    script = """async (tables) => {
      const { formatCsv } = await import('/page/csv.js');
      return tables.map((table) => formatCsv(table, ','));
    }"""
    for table, text in zip(tables, in_browser(script_page, script, tables), strict=True):
        assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == table


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("a,b\n1,2", [(1, ["a", "b"]), (2, ["1", "2"])]),
        ("a\n\n\nb\n", [(1, ["a"]), (4, ["b"])]),
        ('a\n"1\n2"\nb', [(1, ["a"]), (2, ["1\n2"]), (4, ["b"])]),
        ('a"b,c"\n', [(1, ['a"b', 'c"'])]),
        (",\n", [(1, ["", ""])]),
        ('""\n', [(1, [""])]),
        ("a\r\r\nb", [(1, ["a"]), (3, ["b"])]),
        ("", []),
    ],
)
def test_records_know_the_line_they_begin_in(script_page: Page, text: str, records: list[tuple[int, list[str]]]):
    parsed = in_browser(script_page, PARSE, [text, ","])
    assert [(record["line"], record["fields"]) for record in parsed] == records


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a\nb\n"open', "Line 3: a quote opens here and does not close."),
        ('a\n"b"c\n', "Line 2: text follows a closing quote; a quote within a field is written twice."),
    ],
)
def test_broken_quotes_are_refused_with_their_line(script_page: Page, text: str, words: str):
    assert in_browser(script_page, PARSE, [text, ","]) == words


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("a,b;c,d", ","), ("a;b,c;d\n1,2,3,4,5", ";"), ("a\tb", "\t"), ("text\nx;y", ","), ('"a,b,c";d', ";"), ("", ",")],
)
def test_the_delimiter_is_the_one_the_first_row_has_most_of(script_page: Page, text: str, delimiter: str):
    script = "async (text) => (await import('/page/csv.js')).findDelimiter(text)"
    assert in_browser(script_page, script, text) == delimiter


def test_bare_not_a_number_and_infinity_are_read_outside_of_strings_only(script_page: Page):
    script = """async (text) => (await import('/page/api.js')).parse(text)"""
    answer = '{"predictions": [{"a": NaN, "b": [-Infinity, 1.5], "c": "NaN, \\"Infinity\\""}]}'
    assert in_browser(script_page, script, answer) == {
        "predictions": [{"a": "NaN", "b": ["-Infinity", 1.5], "c": 'NaN, "Infinity"'}]
    }


@pytest.mark.parametrize(
    ("probability", "words"),
    [(1, "100.0%"), (0, "0.0%"), (0.99997, ">99.9%"), (0.00002, "<0.1%"), (0.4567, "45.7%")],
)
def test_no_probability_short_of_certain_reads_as_certain(script_page: Page, probability: float, words: str):
    script = "async (probability) => (await import('/page/answer.js')).percent(probability)"
    assert in_browser(script_page, script, probability) == words
