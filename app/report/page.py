"""The report as one HTML text: no other file, host or font is needed to read it."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.compared import Compared
from app.report import model_sections, text_sections, verdict_sections
from app.report.view import Section, View

FOLDER = "page"


def render(compared: Compared) -> str:
    """The page. Every text of the data is escaped; styles and script are inside."""
    files = resources.files("app.report") / FOLDER
    environment = Environment(
        loader=PackageLoader("app.report", FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        view=view(compared),
        css=Markup((files / "report.css").read_text(encoding="utf-8")),
        js=Markup((files / "report.js").read_text(encoding="utf-8")),
    )


def view(compared: Compared) -> View:
    """What the template is given."""
    setting = compared.setting
    headline, sentences = verdict_sections.headline(compared)
    return View(
        title=f"{' against '.join(compared.names)} on {setting.name}",
        eyebrow=f"Comparison on {setting.name}, {setting.made}",
        headline=headline,
        more=sentences,
        rests_on=verdict_sections.rests_on(compared),
        unfair=compared.unfair_label,
        sections=tuple(section for section in _sections(compared) if section is not None),
    )


def _sections(compared: Compared) -> list[Section | None]:
    """In the order in which a reader asks."""
    return [
        verdict_sections.differences(compared),
        verdict_sections.summary(compared),
        verdict_sections.seeds(compared),
        text_sections.disagreements(compared),
        text_sections.slices(compared),
        model_sections.calibration(compared),
        model_sections.risk(compared),
        text_sections.truncation(compared),
        text_sections.leaks(compared),
        text_sections.labels(compared),
        model_sections.costs(compared),
        model_sections.learning_curves(compared),
        model_sections.lock(compared),
        model_sections.making(compared),
    ]
