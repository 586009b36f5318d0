"""The report as files: the page, the same as JSON, and the long lists as CSV to be labelled anew."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from app.analysis.disagreements import inert
from app.analysis.label_errors import Suspects
from app.analysis.leaks import Leaks
from app.analysis.slices import Slice
from app.compared import Compared
from app.report.finding_metrics import finding_metrics
from app.report.page import render
from data.sources.rows import safe_name

PAGE = "report.html"
JSON = "comparison.json"
CSV_FILES = (
    "disagreements.csv",
    "label_suspects_test.csv",
    "label_suspects_train.csv",
    "near_duplicates.csv",
    "slices.csv",
)


def write_report(compared: Compared, page: Path) -> None:
    """Write the page, and `comparison.json` and the CSV files beside it; the folder is made if need be.

    CSV files that an earlier comparison left there, and this one has nothing for, are taken away.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    frames = _frames(compared)
    for name in CSV_FILES:
        if name in frames:
            frames[name].to_csv(page.with_name(name), index=False, encoding="utf-8")
        else:
            page.with_name(name).unlink(missing_ok=True)
    content = json.dumps(compared.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)
    page.with_name(JSON).write_text(content + "\n", encoding="utf-8")
    page.write_text(render(compared), encoding="utf-8")


def default_page(compared: Compared, artifacts: Path) -> Path:
    """Where a comparison's page goes: the same place for the same models on the same data."""
    return artifacts / "reports" / safe_name(compared.setting.name) / safe_name("-".join(sorted(compared.names))) / PAGE


def metrics_of(compared: Compared) -> dict[str, dict[str, float]]:
    """For each model what was found of it (`finding_metrics`), and the differences to every other one.

    A difference is named `difference/accuracy_against_lstm`, its ends `difference_interval/accuracy_against_lstm_low`
    and `..._high`: what stands before a slash is a section of its own in MLflow's charts.
    """
    found = finding_metrics(compared)
    for pair in compared.comparison.pairs:
        for name, interval in pair.metrics.items():
            for model, other, signed in ((pair.first, pair.second, interval), (pair.second, pair.first, -interval)):
                key = f"{name}_against_{other}"
                found[model] |= {
                    f"difference/{key}": signed.value,
                    f"difference_interval/{key}_low": signed.low,
                    f"difference_interval/{key}_high": signed.high,
                }
    return found


def _frames(compared: Compared) -> dict[str, pd.DataFrame]:
    findings = compared.findings
    frames = {f"label_suspects_{split}.csv": _suspects(found) for split, found in findings.suspects.items()}
    frames["slices.csv"] = pd.DataFrame([_slice(one) for one in findings.slices])
    if findings.disagreements is not None:
        frames["disagreements.csv"] = findings.disagreements.relabelling()
    if findings.leaks is not None:
        frames["near_duplicates.csv"] = _twins(findings.leaks)
    return frames


def _suspects(found: Suspects) -> pd.DataFrame:
    columns = ["row", "text", "label", "suggested", "margin", "new_label"]
    rows = [
        [one.row, inert(one.text), inert(one.label), inert(one.suggested), round(one.margin, 4), ""]
        for one in found.rows
    ]
    return pd.DataFrame(rows, columns=columns)


def _twins(found: Leaks) -> pd.DataFrame:
    columns = ["split", "row", "text", "other_split", "other_row", "other_text", "similarity"]
    rows = [
        [
            one.split,
            one.row,
            inert(one.text),
            one.other_split,
            one.other_row,
            inert(one.other_text),
            round(one.similarity, 4),
        ]
        for one in found.twins
    ]
    return pd.DataFrame(rows, columns=columns)


def _slice(one: Slice) -> dict[str, object]:
    row: dict[str, object] = {"feature": inert(one.feature), "value": inert(one.value), "texts": one.rows}
    for model in one.models:
        row |= {
            f"{model.model} accuracy": model.accuracy.value,
            f"{model.model} accuracy elsewhere": model.rest.value,
            f"{model.model} corrected p": model.corrected,
        }
    for pair in one.pairs:
        row[f"{pair.first} - {pair.second}"] = pair.difference.value
        row[f"{pair.first} - {pair.second} corrected p"] = pair.corrected
    return row
