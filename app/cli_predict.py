"""The command `predict`: labels for texts, standard input, or a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from app.errors import RequestError

if TYPE_CHECKING:
    from app.prediction import Answer, Classifier


def predict(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; none, or -: one a line from standard input.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet file to answer row by row.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the rows of --file go, with their answers.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output if it is there.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Column of the texts in --file.")] = None,
    model_base_path: Annotated[
        Path | None,
        typer.Option("--model_base_path", "--model-base-path", help="Folder of versions, or one version folder."),
    ] = None,
    model_name: Annotated[str | None, typer.Option("--model_name", "--model-name", help="Which export to ask.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask a server instead: http://host:port.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most texts answered together: up to 128 here; with --url any number, 64 if not set.",
        ),
    ] = None,
    artifacts: Annotated[
        Path, typer.Option(envvar="VALENCE_ARTIFACTS", help="Folder of runs, exports and caches.")
    ] = Path("artifacts"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Label texts, standard input, or a file."""
    if file is not None and texts:
        raise RequestError("give texts or --file, not both")
    if (file is None) != (output is None):
        raise RequestError("--file and --output go together: answers to a file are written to a file")

    def load() -> Classifier:
        return _classifier(model_base_path, model_name, url, artifacts)

    if file is not None and output is not None:
        _predict_file(file, output, text_column, overwrite, batch_size, load)
    elif texts and texts != ["-"]:
        from app.prediction import predict_texts

        _print_answers(predict_texts(load(), texts, batch_size), as_json)
    else:
        from app.prediction import predict_stream

        _print_answers(predict_stream(load(), sys.stdin.buffer, batch_size), as_json)


def _classifier(base_path: Path | None, model_name: str | None, url: str | None, artifacts: Path) -> Classifier:
    """Load what answers: a server where a URL is given, else the newest version of an export."""
    if url is not None:
        from app.remote import RemoteClassifier

        return RemoteClassifier(url, model_name)
    from app.serving.versions import resolve_model, version_folders

    _, found = resolve_model(base_path, model_name, artifacts / "exports")
    from app.quiet import import_tensorflow

    import_tensorflow(keras=False)
    from app.serving.predictor import Predictor

    return Predictor(next(iter(version_folders(found).values())))


def _predict_file(
    source: Path,
    target: Path,
    text_column: str | None,
    overwrite: bool,
    batch_size: int | None,
    load: Callable[[], Classifier],
) -> None:
    from app.memory import keep_freed_memory
    from app.prediction_files import plan_file, predict_file

    plan = plan_file(source, target, text_column, overwrite=overwrite)
    keep_freed_memory()
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{source.name}", total=plan.count)
        rows = predict_file(load(), plan, lambda done, _: bar.update(task, completed=done), batch_size)
    console.print(f"{target}: {rows:,} rows", highlight=False, soft_wrap=True)


def _print_answers(answers: Iterable[Answer], as_json: bool) -> None:
    for answer in answers:
        if as_json:
            print(json.dumps(answer, ensure_ascii=False), flush=True)
        else:
            shares = "  ".join(f"{label} {share:.3f}" for label, share in answer["probabilities"].items())
            print(f"{answer['label']}\t{answer['confidence']:.3f}\t{shares}\t{answer['text']}", flush=True)
