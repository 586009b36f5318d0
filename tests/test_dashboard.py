"""Alert rules and dashboard: their shapes, their PromQL, and that every metric and label is one the server gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import promql_parser
import pytest
import yaml
from pydantic import BaseModel, Field

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana" / "serving.json").read_text(encoding="utf-8"))
PROMTOOL = shutil.which("promtool")
REQUESTS = ":tensorflow:serving:request_count"
Series = dict[str, dict[str, set[str]]]  # name -> label -> values
DURATION = r"^\d+[smhd]$"


class Strict(BaseModel, extra="forbid"):
    """A shape that refuses what it does not know: a misspelt key would do nothing, and nobody would notice."""


class Annotations(Strict):
    """What whoever is woken reads."""

    summary: str
    action: str


class Alert(Strict):
    """An alerting rule of Prometheus, with what this project wants of each."""

    alert: str = Field(pattern=r"^[A-Z]\w+$")
    expr: str
    for_: str = Field("0s", alias="for", pattern=DURATION)
    labels: dict[Literal["severity"], Literal["page", "ticket"]]
    annotations: Annotations


class Record(Strict):
    """A recording rule of Prometheus."""

    record: str = Field(pattern=r"^[a-zA-Z_:][\w:]*$")
    expr: str


class Group(Strict):
    """Rules that are looked at one after the other."""

    name: str
    interval: str = Field("15s", pattern=DURATION)
    rules: list[Alert | Record]


class Rules(Strict):
    """The file of rules."""

    groups: list[Group]


class Source(Strict):
    """The data source of a panel: that of datasource.yaml."""

    type: Literal["prometheus"]
    uid: Literal["prometheus"]


class Target(Strict):
    """One query of a panel."""

    refId: str  # noqa: N815 - Grafana's names
    datasource: Source
    expr: str
    legendFormat: str  # noqa: N815


class Place(Strict):
    """Where a panel stands on Grafana's grid of 24 columns."""

    h: int = Field(gt=0)
    w: int = Field(gt=0, le=24)
    x: int = Field(ge=0, lt=24)
    y: int = Field(ge=0)


class Panel(BaseModel):
    """A panel as Grafana's JSON has it; what it may hold beside this is much, and drawn, not computed."""

    id: int
    type: Literal["timeseries", "row"]
    title: str
    gridPos: Place  # noqa: N815
    targets: list[Target] = []


PANELS = [Panel(**panel) for panel in DASHBOARD["panels"]]
RULE_EXPRESSIONS = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
PANEL_EXPRESSIONS = [target.expr for panel in PANELS for target in panel.targets]


def plain(expression: str) -> str:
    """A panel's query with what Grafana fills in."""
    return expression.replace("$__rate_interval", "5m").replace("$model", "reviews")


def selectors(expression: str) -> list[Any]:
    """Every selector of a query; raises where it is not PromQL."""
    found: list[Any] = []

    def note(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    return found


def test_the_rules_have_the_shape_of_rules():
    rules = Rules(**RULES)
    names = [rule.alert for group in rules.groups for rule in group.rules if isinstance(rule, Alert)]
    assert len(names) == len(set(names)) == 8
    guide = (DEPLOY.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([A-Z]\w+)` \|", guide, re.MULTILINE) == names


def test_prometheus_reads_those_rules():
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert config["rule_files"] == ["rules.yml"]
    assert config.keys() == {"global", "rule_files", "scrape_configs"}
    assert all(job.keys() <= {"job_name", "metrics_path", "static_configs"} for job in config["scrape_configs"])


@pytest.mark.slow
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")], ids=["config", "rules"]
)
def test_promtool_agrees(arguments: tuple[str, ...]):
    assert PROMTOOL is not None
    checked = subprocess.run([PROMTOOL, *arguments], cwd=DEPLOY / "prometheus", capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_made_up_series_of_its_own():
    tests = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    assert fired == {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}


def test_grafana_finds_the_dashboard_and_the_dashboard_its_data():
    (source,) = yaml.safe_load((DEPLOY / "grafana" / "datasource.yaml").read_text(encoding="utf-8"))["datasources"]
    assert Source(type=source["type"], uid=source["uid"])
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yaml").read_text(encoding="utf-8"))["providers"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    targets = {volume.get("source"): volume["target"] for volume in compose["grafana"]["volumes"]}
    assert targets["./grafana/serving.json"] == f"{provider['options']['path']}/serving.json"
    assert targets["./grafana/datasource.yaml"].startswith("/etc/grafana/provisioning/datasources/")
    assert targets["./grafana/dashboards.yaml"].startswith("/etc/grafana/provisioning/dashboards/")
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose


def test_the_panels_do_not_lie_on_each_other():
    assert len({panel.id for panel in PANELS}) == len(PANELS)
    assert all(bool(panel.targets) == (panel.type != "row") for panel in PANELS)
    taken: set[tuple[int, int]] = set()
    for place in (panel.gridPos for panel in PANELS):
        cells = {(place.x + column, place.y + row) for column in range(place.w) for row in range(place.h)}
        assert max(column for column, _ in cells) < 24
        assert not cells & taken
        taken |= cells


# The metrics that the server gives


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """Every metric of the embedded server with its labels and their values, after a classifier has answered."""
    import numpy as np
    import tensorflow as tf

    from app.serving.metrics import ServingMetrics
    from app.serving.model_config import ModelSettings
    from app.serving.repository import ModelRepository, ModelSpec
    from app.serving.servable import Servable
    from app.serving.status import Code
    from app.serving.text_protos import BatchingParameters

    class Classifier(tf.Module):
        """The signatures of an export, with answers that are always the same."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def classify(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            """Say fresh."""
            probabilities = tf.repeat([[0.75, 0.25]], tf.size(text), axis=0)
            classes = tf.repeat([["fresh", "rotten"]], tf.size(text), axis=0)
            label, confidence = classes[:, 0], probabilities[:, 0]
            return {"label": label, "confidence": confidence, "probabilities": probabilities, "classes": classes}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def text_statistics(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
            """Count letters."""
            count = tf.strings.length(text)
            return {"num_tokens": count, "unknown_share": tf.cast(count, tf.float32) * 0, "truncated": count > 99}

    base, model = tmp_path_factory.mktemp("reviews"), Classifier()
    signatures = {"serving_default": model.classify, "text_statistics": model.text_statistics}
    tf.saved_model.save(model, str(base / "1"), signatures=signatures)
    told: list[ServingMetrics] = []
    load = partial(Servable, batching=BatchingParameters(), on_batch=lambda rows, size: told[0].batch(rows, size))
    repository = ModelRepository([ModelSettings("reviews", base)], load)
    metrics = ServingMetrics(repository)
    told.append(metrics)
    repository.start()
    try:
        with repository.lease(ModelSpec("reviews")) as servable:
            inputs = {"text": np.array([b"a joyless, slick ride"], object)}
            metrics.answered("reviews", servable, inputs, servable.run("serving_default", inputs))
        metrics.request("reviews", "Predict", "REST", Code.OK, 0.001)
        metrics.request("reviews", "Predict", "GRPC", Code.OK, 0.001)
        with suppress(ValueError), metrics.loading(base / "2"):
            raise ValueError
        metrics.runtime("reviews", "Predict", 0.001)
        metrics.flush()
        return series_of(metrics.exposition().decode())
    finally:
        metrics.close()
        repository.close()


def series_of(exposition: str) -> Series:
    """The series of Prometheus' text format: name -> label -> its values."""
    found: Series = {}
    for line in exposition.splitlines():
        if series := re.match(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+$", line):
            labels = found.setdefault(series[1], {})
            for label, value in re.findall(r'(\w+)="([^"]*)"', series[2] or ""):
                labels.setdefault(label, set()).add(value)
    return found


def recorded() -> Series:
    """What is there beside the server's own: what the rules record, and whether a target answers."""
    names = [rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule]
    kept = {name: ["model_name", "label"] if "label" in name else ["model_name"] for name in names}
    return {name: {key: set() for key in labels} for name, labels in {**kept, "up": ["job", "instance"]}.items()}


@pytest.mark.parametrize("expression", [*RULE_EXPRESSIONS, *map(plain, PANEL_EXPRESSIONS)])
def test_every_metric_and_label_of_a_query_exists(expression: str, metrics: Series):
    known = {**metrics, **recorded()}
    for selector in selectors(expression):
        assert selector.name in known
        for matcher in selector.matchers.matchers:
            assert matcher.name in known[selector.name]
            values = known[selector.name][matcher.name]
            # How requests end is asked below; they ended well here.
            if values and selector.name != REQUESTS:
                assert any(re.fullmatch(matcher.value, value) for value in values)
    labels = {label for selector in selectors(expression) for label in known[selector.name]}
    for grouping in re.findall(r"(?:by|on|ignoring) \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouping)) <= labels


def test_rest_and_grpc_are_both_in_the_latency(metrics: Series):
    values = metrics[":tensorflow:serving:request_latency_bucket"]["API"]
    asked = {
        matcher.value
        for expression in [*RULE_EXPRESSIONS, *map(plain, PANEL_EXPRESSIONS)]
        for selector in selectors(expression)
        for matcher in selector.matchers.matchers
        if matcher.name == "API"
    }
    assert all(re.fullmatch(pattern, value) for pattern in asked for value in values)


def test_a_status_of_the_rules_is_one_that_the_server_gives():
    from app.serving.status import Code

    requests = [one for expression in RULE_EXPRESSIONS for one in selectors(expression) if one.name == REQUESTS]
    statuses = [one.value for selector in requests for one in selector.matchers.matchers if one.name == "status"]
    named = [name for status in statuses for name in status.split("|")]
    assert set(named) < {code.name for code in Code}
    assert len(set(named)) == len(named) > 0, "a status counts for one alert"


def test_the_dashboard_s_variable_and_legends_are_labels(metrics: Series):
    (variable,) = DASHBOARD["templating"]["list"]
    name, label = re.fullmatch(r"label_values\(([\w:]+), (\w+)\)", variable["query"]["query"]).groups()
    assert label in metrics[name]
    kept = recorded()
    for target in (target for panel in PANELS for target in panel.targets):
        assert target.legendFormat
        for label in re.findall(r"\{\{(\w+)\}\}", target.legendFormat):
            grouped = re.findall(r"by \(([^)]*)\)", target.expr)
            whole = [kept.get(selector.name, {}) for selector in selectors(plain(target.expr))]
            assert any(label in names.split(", ") for names in grouped) or any(label in names for names in whole)
