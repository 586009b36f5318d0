"""The command `compare`: models that were trained at any time, side by side, with a report to keep."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.padding import Padding

from app.cli_output import next_commands
from app.errors import RequestError

if TYPE_CHECKING:
    from app.compared import Compared
    from app.comparing import Wanted
    from app.tracking import Tracker
    from data.sources import DataConfig

PLAIN_WIDTH = 100  # of lines when nobody says how wide the window is
INDENT = 2


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="MLflow run ids or their start, name@champion, name/3, experiments, or SavedModel folders.",
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Labelled texts that SavedModel folders are asked.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts in --data.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels in --data.")] = None,
    slice_column: Annotated[
        list[str] | None, typer.Option(help="Column of --data to look at parts of it by; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The HTML report; JSON and CSV files go beside it.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare what was not trained and measured alike.")] = False,
    margin: Annotated[
        float | None, typer.Option(help="Points of accuracy that do not matter: tests whether models are equivalent.")
    ] = None,
    price_per_cpu_hour: Annotated[float | None, typer.Option(help="What an hour of CPU costs.")] = None,
    price_per_error: Annotated[float | None, typer.Option(help="What a wrong answer costs.")] = None,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Train each model on 10, 20, 50 and 100% of the rows: slow.")
    ] = False,
    no_leaks: Annotated[bool, typer.Option("--no-leaks", help="No search for near-duplicates across splits.")] = False,
    no_costs: Annotated[bool, typer.Option("--no-costs", help="The models are not timed beside each other.")] = False,
    artifacts: Annotated[
        Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.")
    ] = Path("artifacts"),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output, the rest on standard error.")
    ] = False,
) -> None:
    """Compare trained models on the same test texts, with a report of what stands behind the figures."""
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH)
    _check(output, margin)
    _check_prices(price_per_cpu_hour, price_per_error, costs=not no_costs)
    from app.quiet import import_tensorflow

    console.print("loading ...", highlight=False)
    import_tensorflow()
    from app.comparing import Wanted

    wanted = Wanted(
        references=tuple(models),
        made=datetime.now().astimezone().strftime("%-d %B %Y, %H:%M %Z"),
        data=_data(data, text_column, label_column, slice_column or []),
        anyway=anyway,
        margin=None if margin is None else margin / 100,
        price_per_cpu_hour=price_per_cpu_hour,
        price_per_error=price_per_error,
        learning_curve=learning_curve,
        leaks=not no_leaks,
        costs=not no_costs,
    )
    compared, page = _carry_out(console, wanted, artifacts, output)
    if as_json:
        print(json.dumps(compared.to_dict(), ensure_ascii=False, indent=2, allow_nan=False))
    show(console, compared)
    _end(console, compared, page, models)


def show(console: Console, compared: Compared) -> None:
    """Print the table, the verdict with what it rests on, and the most telling findings in a few lines each."""
    from app.display import comparison_table, write_wrapped
    from app.highlights import highlights
    from app.report.verdict_sections import rests_on

    title = f"{compared.setting.name}: {compared.num_examples:,} test {compared.setting.noun}, 95% intervals"
    console.print(f"\n[bold]{title}[/bold]" if console.is_terminal else f"\n{title}", highlight=False)
    if compared.unfair_label:
        write_wrapped(console, compared.unfair_label)
    if compared.setting.starts:
        write_wrapped(console, f"text from outside: {compared.setting.starts}")
    rows = compared.comparison.table()
    if table_width(rows) <= console.width - INDENT:
        console.print(Padding(comparison_table(rows), (0, 0, 1, INDENT)))
    else:
        _print_one_below_the_other(console, rows)
    for sentence in (*compared.sentences, rests_on(compared)):
        write_wrapped(console, sentence, INDENT)
    for heading, sentences in highlights(compared):
        console.print(f"\n{heading}", highlight=False)
        for sentence in sentences:
            write_wrapped(console, sentence, INDENT)
    if compared.missing:
        console.print("\nNot looked at", highlight=False)
        for what, why in compared.missing.items():
            write_wrapped(console, f"{what}: {why}", INDENT)


def table_width(rows: list[dict[str, str]]) -> int:
    """The columns of a terminal that a table takes at least: cells stay whole, headings fold between words."""
    columns = {heading: [row[heading] for row in rows] for heading in rows[0]}
    widths = [max(map(len, [*heading.split(), *cells])) for heading, cells in columns.items()]
    return sum(widths) + 3 * len(widths)


def _print_one_below_the_other(console: Console, rows: list[dict[str, str]]) -> None:
    """Each model with its figures below it, for a window that is too narrow for a table."""
    for row in rows:
        name, *figures = row.items()
        console.print(f"{' ' * INDENT}{name[1]}", markup=False, highlight=False)
        for heading, figure in figures:
            console.print(f"{' ' * INDENT}  {heading} {figure}", markup=False, highlight=False)
    console.print()


def _check(output: Path | None, margin: float | None) -> None:
    """Refuse before TensorFlow takes its seconds, as `_check_prices` does."""
    if output is not None and output.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--output {output}: the report is an HTML file, so its name ends in .html")
    if output is not None and output.is_dir():
        raise RequestError(f"--output {output} is a folder; name the file of the report")
    if margin is not None and not 0 < margin < 100:
        raise RequestError(f"--margin {margin:g}: points of accuracy, above 0 and below 100")


def _check_prices(cpu_hour: float | None, error: float | None, *, costs: bool) -> None:
    for option, price in (("--price-per-cpu-hour", cpu_hour), ("--price-per-error", error)):
        if price is not None and not (price > 0 and math.isfinite(price)):
            raise RequestError(f"{option} {price:g}: a price above 0")
        if price is not None and not costs:
            raise RequestError(f"{option} is for the costs, which --no-costs leaves out: give one of the two")


def _data(
    file: Path | None, text_column: str | None, label_column: str | None, slice_columns: list[str]
) -> DataConfig | None:
    from data.sources import DataConfig

    if file is None:
        given = {"--text-column": text_column, "--label-column": label_column, "--slice-column": slice_columns}
        for option, value in given.items():
            if value:
                raise RequestError(f"{option} is a column of --data, which is not given")
        return None
    return DataConfig(
        source=str(file), text_column=text_column, label_column=label_column, slice_columns=tuple(slice_columns)
    )


def _carry_out(console: Console, wanted: Wanted, artifacts: Path, output: Path | None) -> tuple[Compared, Path]:
    """Compare, write the report, and keep it with every run that was compared."""
    from app.comparing import compare_named
    from app.display import TerminalReporter
    from app.report.files import default_page, write_report
    from app.tracking import Tracker

    reporter = TerminalReporter(console)
    try:
        # MLflow prints to standard output, which belongs to --json.
        with contextlib.redirect_stdout(sys.stderr):
            tracker = Tracker(artifacts)
            compared = compare_named(wanted, tracker, artifacts / "cache", reporter)
            page = output or default_page(compared, artifacts)
            write_report(compared, page)
            _keep(compared, tracker)
    finally:
        reporter.close()
    return compared, page


def _keep(compared: Compared, tracker: Tracker) -> None:
    """Add the report to the runs; a store that only gives is no reason to hide what was found."""
    from app.comparing import keep_report

    try:
        keep_report(compared, tracker)
    except (RuntimeError, OSError) as error:
        Console(stderr=True).print(f"the report is not kept with the runs: {error}", markup=False, highlight=False)


def _end(console: Console, compared: Compared, page: Path, references: list[str]) -> None:
    console.print(f"\nReport: {page}", markup=False, highlight=False, soft_wrap=True)
    if not any(one.run_ids for one in compared.contestants):
        next_commands(console, ("valence predict --help", "label texts with one of them"))
        return
    again = f"valence compare {shlex.join(references)} --learning-curve"
    curve = [] if compared.findings.curves else [(again, "what more rows would bring; trains anew")]
    next_commands(console, ("valence ui", "the report is among each run's artifacts, under comparison/"), *curve)
