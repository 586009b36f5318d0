"""The command `promote`: the champion moves to another run's version through the gates, or back."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.cli_output import next_commands
from app.errors import RequestError

if TYPE_CHECKING:
    from app.gates import GateResult
    from app.promotion import Promotion

EXIT_REFUSED = 1
PLAIN_WIDTH = 100  # of lines when nobody says how wide the window is


def promote(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Run's id, name/version or name@alias; with --rollback a registered model's name."
        ),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the champion before this one champion again.")
    ] = False,
    gates: Annotated[Path | None, typer.Option(help="TOML file of limits, e.g. deploy/gates.toml.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the gates' figures and move nothing.")] = False,
    artifacts: Annotated[
        Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.")
    ] = Path("artifacts"),
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on standard output, the rest on standard error.")
    ] = False,
) -> None:
    """Make a run's model the champion that is served, if it passes the gates; or go back."""
    if run is None and not rollback:
        raise RequestError("name the run to promote (its id is in `valence ui`), or give --rollback")
    if rollback and gates is not None:
        raise RequestError("--rollback goes back to a version that has passed: --gates means nothing for it")
    stream = sys.stderr if as_json else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else PLAIN_WIDTH)
    done = _carry_out(console, run, gates, artifacts, rollback=rollback, dry_run=dry_run)
    if as_json:
        print(json.dumps(done.to_dict(), ensure_ascii=False, indent=2, allow_nan=False))
    _tell(console, done, dry_run=dry_run)
    if done.refused_by:
        raise typer.Exit(EXIT_REFUSED)
    if dry_run:
        next_commands(console, (f"valence promote {'--rollback' if rollback else run}", "do it"))
    else:
        next_commands(
            console,
            ("python serve.py", "serve the champion; a server that is running takes it up by itself"),
            ("valence promote --rollback", "back to the champion before"),
        )


def _carry_out(
    console: Console, run: str | None, file: Path | None, artifacts: Path, *, rollback: bool, dry_run: bool
) -> Promotion:
    from app.gates import Gates, read_gates

    limits = read_gates(file) if file else Gates()
    console.print("measuring ...", highlight=False)
    from app.quiet import import_tensorflow

    import_tensorflow()
    from app import promotion
    from app.tracking import Tracker

    exports = artifacts / "exports"
    # MLflow prints to standard output, which belongs to --json.
    with contextlib.redirect_stdout(sys.stderr):
        tracker = Tracker(artifacts)
        if rollback:
            return promotion.roll_back(tracker, run, exports, dry_run=dry_run)
        assert run is not None
        return promotion.promote(tracker, run, exports, limits, dry_run=dry_run)


def _tell(console: Console, done: Promotion, *, dry_run: bool) -> None:
    """Every gate's figure, then what came of it."""
    rival = f"against the champion, version {done.champion.version} ({done.champion.model})" if done.champion else ""
    console.print(f"{done.version} {rival}".rstrip(), highlight=False, soft_wrap=True)
    console.print(Padding(_table(done.gates), (1, 0, 1, 2)))
    lines = [f"{gate.name}: {gate.reason}" for gate in done.gates if gate.reason]
    if done.refused_by:
        lines.append(f"refused by {', '.join(gate.name for gate in done.refused_by)}; nothing has changed")
    elif dry_run:
        lines.append("every gate passed; nothing has changed, as this was a dry run")
    else:
        before = f", instead of version {done.champion.version}" if done.champion else ""
        lines.append(f"champion: {done.version}{before}; served from {done.export}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(gates: tuple[GateResult, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("gate", "figure", "limit", ""):
        table.add_column(heading, overflow="fold")
    for gate in gates:
        # As texts: a slice is named by the user's values, which may look like markup.
        table.add_row(gate.name, Text(gate.figure), gate.limit, "passed" if gate.passed else "failed")
    return table
