"""Sections about whole models: calibration, risk and coverage, costs, learning curves, and how they were made."""

from __future__ import annotations

from app import wording
from app.analysis.selective import Calibration
from app.compared import Compared, LockLine
from app.report.charts import learning_chart, reliability_chart, risk_coverage_chart
from app.report.tables import Cell, Column, Table, plain_table
from app.report.view import Chart, Part, Section, colours, legend

HOW_TO_MEASURE = "valence compare ... --learning-curve trains each model on growing parts of the rows and draws it."


def calibration(compared: Compared) -> Section:
    """Reliability of each model before and after its temperature, and the calibration errors."""
    found, classes = compared.findings.calibrations, colours(compared.names)
    charts = tuple(
        Chart(name, reliability_chart(found[name].before, found[name].after, name, classes[name]))
        for name in compared.names
    )
    table = Table(
        "calibration-errors",
        "Expected calibration error: how far confidence and accuracy are apart on average; 0 is best.",
        (Column("model", "name"), Column("temperature"), Column("before"), Column("after")),
        tuple(
            (
                Cell(name),
                *_before_cells(found[name]),
                Cell(wording.decimals(found[name].after.expected_calibration_error)),
            )
            for name in compared.names
        ),
        sortable=False,
    )
    why = compared.missing.get("calibration before the temperature")
    said = (
        "How often answers of a given confidence are right. On the dotted diagonal confidence keeps its promise; "
        "below it a model is too sure. Hollow dots on a dashed line are before the temperature, full ones after; "
        "a larger dot stands for more texts.",
        *((f"Only after the temperature: {why}.",) if why else ()),
    )
    return Section("calibration", "Calibration, before and after", said, (Part(charts=charts, tables=(table,)),))


def _before_cells(found: Calibration) -> tuple[Cell, Cell]:
    """The temperature, and the calibration error before it."""
    if found.temperature is None or found.before is None:
        return Cell("not known"), Cell("not known")
    return Cell(f"{found.temperature:.2f}"), Cell(wording.decimals(found.before.expected_calibration_error))


def risk(compared: Compared) -> Section:
    """What the models are worth when they may pass on texts they are not sure of."""
    found, classes = compared.findings.risks, colours(compared.names)
    curves = {name: (found[name].coverage, found[name].risk) for name in compared.names}
    shares = [one.coverage for one in found[compared.names[0]].at]
    table = Table(
        "coverage",
        "Accuracy on the surest texts, by the share of texts that is answered.",
        (Column("model", "name"), *(Column(f"{share:.0%}") for share in shares), Column("area under risk")),
        tuple(
            (
                Cell(name),
                *(Cell(wording.interval(one.accuracy)) for one in found[name].at),
                Cell(wording.decimals(found[name].area)),
            )
            for name in compared.names
        ),
        sortable=False,
    )
    chart = Chart("Errors among the texts that are answered, the surest first", risk_coverage_chart(curves, classes))
    said = ("A model that may pass on texts it is not sure of answers fewer of them with fewer errors.",)
    part = Part(legend=legend(classes), charts=(chart,), tables=(table,), wide=True)
    return Section("risk", "When a model may pass", said, (part,))


def costs(compared: Compared) -> Section:
    """What each model costs and what the dearer one gives for it; what was logged where nothing was measured."""
    panel = compared.findings.costs
    if panel is not None:
        table = plain_table("costs-table", "Cheapest first, by CPU seconds in batches.", panel.table())
        return Section("costs", "Costs", panel.sentences, (Part(tables=(table,)),))
    rows = tuple(
        (
            Cell(one.name),
            Cell(wording.duration(one.training_seconds)),
            Cell("unknown" if one.training_cpu_seconds is None else wording.duration(one.training_cpu_seconds)),
            Cell("unknown" if one.parameters is None else f"{one.parameters:,}"),
            Cell(wording.milliseconds(one.milliseconds_per_text)),
        )
        for one in compared.contestants
    )
    headings = ("training", "training CPU", "parameters", "one text")
    table = Table(
        "costs-table",
        "As logged when each model was trained.",
        (Column("model", "name"), *(Column(heading) for heading in headings)),
        rows,
        sortable=False,
    )
    why = compared.missing.get("costs", "the models were not measured beside each other")
    return Section("costs", "Costs", (f"No break-even: {why}.",), (Part(tables=(table,)),))


def learning_curves(compared: Compared) -> Section:
    """Accuracy by training rows with a forecast, or how to get it."""
    curves, classes = compared.findings.curves, colours(compared.names)
    why = compared.missing.get("learning curve")
    failed = (f"Not measured: {why}.",) if why else ()
    if not curves:
        return Section("learning", "Learning curve", failed or (HOW_TO_MEASURE,))
    charts = tuple(Chart(name, learning_chart(curve, name, classes[name])) for name, curve in curves.items())
    said = (
        "Dots are trained on that many rows, with the 95% interval; the dashed line is the power law through them, "
        "rings and the shaded ground are what it expects of more rows.",
        *(f"{name}: {' '.join(curve.sentences)}" for name, curve in curves.items()),
        *failed,
    )
    return Section("learning", "Learning curve", said, (Part(charts=charts, wide=True),))


def lock(compared: Compared) -> Section:
    """Everything that has to be the same for a fair comparison, and whether it is."""
    lines = compared.setting.lock
    if not lines:
        return Section("lock", "Is it a fair comparison?", ("Nothing is known of how these models were trained.",))
    different = [line.what for line in lines if line.is_known and not line.is_same]
    unknown = compared.missing.get("fair comparison", "")
    said = (
        *((f"Not the same for all: {wording.listing(different)}.",) if different else ()),
        *((f"{unknown[0].upper()}{unknown[1:]}.",) if unknown else ()),
    ) or ("Everything that has to be the same for a fair comparison is the same.",)
    names = [one.name for one in compared.contestants]
    table = Table(
        "lock-table",
        "What the figures depend on beside the model; hashes are cut short.",
        (Column("what", "name"), Column("same?", "label"), *(Column(name, "label") for name in names)),
        tuple(
            (
                Cell(line.what),
                Cell(_sameness(line), class_="" if line.is_same else "bad"),
                *(Cell(value) for value in line.values),
            )
            for line in lines
        ),
        sortable=False,
    )
    return Section("lock", "Is it a fair comparison?", said, (Part(tables=(table,)),))


def _sameness(line: LockLine) -> str:
    if not line.is_known:
        return "not known"
    return "same" if line.is_same else "differs"


def making(compared: Compared) -> Section:
    """Where each model came from, and the software that compared them."""
    facts = list(dict.fromkeys(fact for one in compared.contestants for fact in one.facts))
    models = Table(
        "origins",
        "The models.",
        (
            Column("model", "name"),
            Column("from", "text"),
            Column("seeds", "label"),
            *(Column(f, "label") for f in facts),
        ),
        tuple(
            (
                Cell(one.name),
                Cell(one.origin or "not said"),
                Cell(", ".join(name for name in one.seed_names if name) or str(len(one.seeds))),
                *(Cell(one.facts.get(fact, "not said")) for fact in facts),
            )
            for one in compared.contestants
        ),
        sortable=False,
    )
    setting = compared.setting
    conditions = {
        "data": setting.name,
        "test examples": f"{compared.num_examples:,}",
        "made": setting.made,
        **setting.versions,
    }
    software = Table(
        "conditions",
        "The comparison.",
        (Column("what", "name"), Column("value", "label")),
        tuple((Cell(name), Cell(value)) for name, value in conditions.items()),
        sortable=False,
    )
    return Section("making", "How it was made", (), (Part(tables=(models, software)),))
