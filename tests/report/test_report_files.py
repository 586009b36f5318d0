"""The report as files: what is in them, and that nothing of the data gets out of its place."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape

from app import wording
from app.analysis.truncation import truncation_ledger
from app.compared import Compared, LockLine, look_into
from app.report.files import metrics_of, write_report
from app.report.model_sections import lock
from app.report.page import render
from app.report.text_sections import MOST_DISAGREEMENTS, MOST_TWINS
from report.made import FORMULA, HOSTILE, LONG, made_compared

MEASURED = (
    "calibration_error_before",
    "calibration_error_after",
    "risk_area",
    "accuracy_at_90_coverage",
    "worst_slice_gap",
    "pieces_lost",
    "leak_share",
    "accuracy_without_leaks",
    "label_suspects_test",
)


class Outline(HTMLParser):
    """What a page holds: elements by name, ids, headings by level, and that every element is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return report.read_text(encoding="utf-8")


def test_hostile_texts_and_names_are_text(text: str):
    assert HOSTILE not in text
    assert "&lt;script&gt;window.hacked = 1&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert "<b>bad</b>" not in text
    outline = Outline(text)
    assert outline.names.count("script") == 1
    assert "img" not in outline.names
    assert not [entry for entry in outline.attributes if entry[1].startswith("on")]


def test_the_markup_is_whole_and_its_ids_are_one_of_a_kind(text: str):
    outline = Outline(text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    levels = [int(name[1]) for name in outline.names if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert outline.names.count("table") == outline.names.count("caption") > 10


def test_nothing_outside_the_file_is_needed(text: str):
    outline = Outline(text)
    links = [value for _, name, value in outline.attributes if name in ("href", "src", "action", "data", "srcset")]
    assert links
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|localStorage|sessionStorage|alert\(", text)


def test_every_link_within_the_page_leads_somewhere(text: str):
    outline = Outline(text)
    links = [value[1:] for _, name, value in outline.attributes if name == "href" and value.startswith("#")]
    assert len(links) > 10
    assert set(links) <= set(outline.ids)


def test_the_first_screen_says_the_verdict_and_what_it_rests_on(compared: Compared, text: str):
    head = text[: text.index("</header>")]
    assert re.search(r"<h1>[^<]*(better than|cannot be told apart|borderline)[^<]*</h1>", head)
    assert "On 300 test examples, the same for every model." in head
    assert "Trained with several seeds" in head
    assert text.index("</header>") < text.index('class="forest"') < text.index("<nav")


def test_a_long_text_is_folded_away_and_cut(text: str):
    assert text.count("<details>") >= 1
    assert LONG not in text
    assert re.search(r"<summary>a very long text .{200,280} \.\.\.</summary>", text)
    assert re.search(r'<div class="whole">a very long text .* \(5,\d\d\d characters\)</div>', text)


def test_what_makes_a_comparison_unfair_stands_above_the_verdict():
    said = "not a fair comparison: the tuning budget: lstm 30 min, linear and transformer 0 min"
    unfair = made_compared(unfair=said, curves=False)
    text = render(unfair)
    label = f"N{said[1:]}."
    assert text.index(label) < text.index("<h1>")
    assert f"<caption>{label} Best accuracy first" in text
    assert unfair.sentences[0] == unfair.to_dict()["sentences"][0] == label
    assert unfair.to_dict()["unfair"] == said
    assert "--learning-curve" in text


def test_a_large_comparison_stays_below_two_megabytes_and_says_what_it_left_out():
    large = made_compared(tests=1289, curves=False, copies=MOST_TWINS)
    text = render(large)
    assert len(large.findings.disagreements.rows) > MOST_DISAGREEMENTS
    assert f"The first {MOST_DISAGREEMENTS} of {len(large.findings.disagreements.rows):,} disagreements" in text
    assert f"The first {MOST_TWINS} of {len(large.findings.leaks.twins)} pairs; all of them are in near_dupl" in text
    assert text.count('<td class="text">', text.index('id="twins"'), text.index('id="labels"')) == 2 * MOST_TWINS
    assert len(text.encode()) < 2_000_000


def test_json_has_the_verdict_and_every_finding(compared: Compared, report: Path):
    content = json.loads(report.with_name("comparison.json").read_text(encoding="utf-8"))
    assert content["sentences"] == list(compared.comparison.sentences)
    assert [model["name"] for model in content["models"]] == ["linear", "lstm", "transformer"]
    assert all(content["findings"].values())
    assert content["lock"][1] == {"what": "the tuning budget", "same": False, "values": ["0 min", "30 min", "0 min"]}


def test_csv_files_hold_whole_texts_and_no_formula(compared: Compared, report: Path):
    names = ("disagreements", "label_suspects_test", "label_suspects_train", "near_duplicates", "slices")
    for name in (f"{name}.csv" for name in names):
        with report.with_name(name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows, name
        assert not [cell for row in rows for cell in row.values() if re.match(r"[=+@]|-[^\d]", cell or "")]
    with report.with_name("disagreements.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert len(texts) == len(compared.findings.disagreements.rows)
    assert f"'{FORMULA} 0" in texts
    assert f"{LONG} 0" in texts


def test_pairs_across_splits_can_be_read_on_the_page_and_in_their_file(compared: Compared, report: Path, text: str):
    with report.with_name("near_duplicates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    twins = compared.findings.leaks.twins
    assert [(row["split"], int(row["row"])) for row in rows] == [(twin.split, twin.row) for twin in twins]
    assert f"'{FORMULA} 2" in [row["other_text"] for row in rows]
    assert f"{LONG} 0" in [row["text"] for row in rows]
    shown = text[text.index('id="twins"') : text.index('id="labels"')]
    assert str(escape(f"{HOSTILE} 0")) in shown
    assert "<script" not in shown
    assert shown.count("<tr>") == 1 + len(twins)


def test_accuracy_by_length_is_shown_of_every_model_that_cuts(compared: Compared, text: str):
    shown = text[text.index('id="lengths-1"') : text.index('id="prices-1"')]
    ledgers = [compared.findings.ledgers[name] for name in compared.names]
    assert re.findall(r'<th scope="col" class="number">([^<]+)<', shown) == ["number", "cut", *compared.names]
    lines = [re.findall(r"<t[dh][^>]*>([^<]+)<", row) for row in shown.split("<tr>")[2:]]
    assert [line[0] for line in lines[:-2]] == [one.name for one in ledgers[0].by_length]
    assert [line[3:] for line in lines[:-2]] == [
        [wording.interval(ledger.by_length[place].accuracy) for ledger in ledgers] for place in range(len(lines) - 2)
    ]
    num_cut = int(compared.answers[0].truncated.sum())
    assert lines[-2][:3] == ["all that are cut", str(num_cut), "100.0%"]
    assert lines[-1][:3] == ["all that are not", str(300 - num_cut), "0.0%"]
    assert lines[-2][3:] == [wording.interval(ledger.accuracy_cut) for ledger in ledgers]
    assert 0 < num_cut < 300


def test_models_that_cut_differently_have_tables_of_their_own_and_whole_texts_none():
    whole = made_compared(tests=60, curves=False)
    ledgers = dict(whole.findings.ledgers)
    answers = {one.name: one for one in whole.answers}
    ledgers["lstm"] = truncation_ledger(replace(answers["lstm"], sequence_length=10))
    ledgers["linear"] = truncation_ledger(replace(answers["linear"], sequence_length=100_000))
    text = render(replace(whole, findings=replace(whole.findings, ledgers=ledgers)))
    outline = Outline(text)
    assert len(outline.ids) == len(set(outline.ids))
    assert {"lengths-1", "lengths-2"} == {name for name in outline.ids if name.startswith("lengths-")}
    assert "linear reads 100,000 pieces; no text is longer" in text
    assert not re.search(r"<h3[^>]*>[^<]*linear[^<]*pieces are read", text)


def test_without_a_temperature_there_is_no_before():
    whole = made_compared(tests=60, curves=False)
    untold = replace(whole.contestants[0], knows_temperature=False)
    found = look_into([untold, *whole.contestants[1:]], whole.setting)
    why = "linear does not tell its temperature (no assets.extra/calibration.json)"
    assert found.missing["calibration before the temperature"] == why
    told = found.to_dict()["findings"]["calibration"]
    assert (told["linear"]["temperature"], told["linear"]["before"]) == (None, None)
    assert told["lstm"]["before"] != told["lstm"]["after"]
    text = render(found)
    section = text[text.index('id="calibration"') : text.index('id="risk"')]
    assert f"Only after the temperature: {why}." in section
    assert section.count('<td class="number">not known</td>') == 2
    assert "comparison/calibration_error_before" not in metrics_of(found)["linear"]
    assert "comparison/calibration_error_before" in metrics_of(found)["lstm"]


def test_without_a_search_there_are_no_pairs(tmp_path: Path):
    whole = made_compared(tests=60, curves=False)
    write_report(replace(whole, findings=replace(whole.findings, leaks=None)), tmp_path / "report.html")
    assert not (tmp_path / "near_duplicates.csv").exists()
    assert 'id="twins"' not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_metrics_say_the_difference_from_either_side(compared: Compared):
    metrics = metrics_of(compared)
    lstm, transformer = metrics["lstm"], metrics["transformer"]
    back, ends = "difference/accuracy_against_transformer", "difference_interval/accuracy_against_transformer"
    assert transformer["difference/accuracy_against_lstm"] == -lstm[back]
    assert transformer["difference_interval/accuracy_against_lstm_low"] == -lstm[f"{ends}_high"]
    assert lstm[f"{ends}_low"] < lstm[back] < lstm[f"{ends}_high"]


def test_findings_are_metrics_in_sections_of_their_own(compared: Compared):
    metrics, found = metrics_of(compared), compared.findings
    lstm = {name: value for name, value in metrics["lstm"].items() if not name.startswith("difference")}
    costs = {"p95_milliseconds": 3.0, "texts_per_second": 1000 / 1.5, "export_megabytes": 5.0}
    curve = [f"learning_curve/accuracy_{share}" for share in ("0.1", "0.2", "0.5", "1")]
    assert lstm.keys() == {
        *(f"comparison/{name}" for name in (*MEASURED, *costs, "p_against_linear", "p_against_transformer")),
        *curve,
    }
    assert {name: lstm[f"comparison/{name}"] for name in costs} == pytest.approx(costs)
    assert not [name for name in metrics["linear"] if name.startswith("learning_curve/")]
    assert metrics["linear"]["comparison/p_against_lstm"] == lstm["comparison/p_against_linear"]
    assert lstm["comparison/leak_share"] == found.leaks.leaked[1].share.value > 0
    assert lstm["comparison/label_suspects_test"] == len(found.suspects["test"].rows)
    gaps = [one.models[1].gap for one in found.slices if one.models[1].model == "lstm"]
    assert lstm["comparison/worst_slice_gap"] == max(gaps, key=lambda gap: gap.low).value
    assert lstm["comparison/accuracy_at_90_coverage"] == found.risks["lstm"].at[1].accuracy.value
    assert lstm["learning_curve/accuracy_1"] == found.curves["lstm"].points[-1].accuracy.value


def test_what_was_not_looked_at_is_no_metric():
    whole = made_compared(tests=60, curves=False)
    speeds = replace(whole.findings.costs.models[0].speed, joules=5_000.0, texts_per_second=math.inf)
    costs = replace(whole.findings.costs, models=(replace(whole.findings.costs.models[0], speed=speeds),))
    bare = replace(whole, findings=replace(whole.findings, leaks=None, slices=(), suspects={}, costs=costs))
    metrics = metrics_of(bare)
    names = ("leak_share", "accuracy_without_leaks", "label_suspects_test", "worst_slice_gap", "texts_per_second")
    assert not {f"comparison/{name}" for name in names} & metrics["linear"].keys()
    assert metrics["linear"]["comparison/joules_per_text"] == 5.0
    assert "comparison/p95_milliseconds" not in metrics["lstm"]
    assert all(math.isfinite(value) for values in metrics.values() for value in values.values())


def test_what_was_not_logged_is_neither_the_same_nor_different(compared: Compared):
    lines = (
        LockLine("the rows", ("1f00c0de",) * 3),
        LockLine("the vocabulary", ("2b2b2b2b", "not logged", "not logged")),
    )
    why = "not logged for lstm and transformer: the vocabulary"
    setting = replace(compared.setting, lock=lines)
    section = lock(replace(compared, setting=setting, missing={"fair comparison": why}))
    assert section.sentences == ("Not logged for lstm and transformer: the vocabulary.",)
    (table,) = section.parts[0].tables
    assert [row[1].shown for row in table.rows] == ["same", "not known"]
