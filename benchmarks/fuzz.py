"""Fuzz the embedded server: generated requests against `serve.py` in a process of its own.

    python benchmarks/fuzz.py --requests 5000 --seed 0

It reports answers by status class, answers from 500 on (there must be none but the documented 501, 503 and 504, which
are named), crashes, and the server's memory after a warm-up of 500 requests and at the end (flat within 5%).
Exit code 1 when one of these does not hold. Requests come from hypothesis (fuzz_requests.py) and from schemathesis
(openapi.json); atheris, where it is installed, fuzzes the JSON and base64 decoding in process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fuzz_answers import Asker, BadAnswerError, Tally, resident_bytes, settled_bytes
from fuzz_model import NAME, write_model
from fuzz_requests import DAMAGED_HTTP, KINDS
from hypothesis import HealthCheck, Phase, given, seed, settings
from servers import PROJECT, free_port, running
from serving_models import apart

WARM_UP = 500
MAX_GROWTH = 0.05
# Shares of all requests; the rest comes from hypothesis.
SCHEMA_SHARE, DAMAGED_SHARE = 0.3, 0.06
_FAULTS = re.compile(r"Traceback|failed inside the server|Exception in ASGI|Segmentation|core dumped")


@dataclass
class Report:
    """What is found out, and printed at the end."""

    tally: Tally = field(default_factory=Tally)
    by_kind: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    resident: dict[int, int] = field(default_factory=dict)  # requests so far -> bytes
    notes: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """How much more memory the server has at the end than after the warm-up, as a share."""
        sizes = list(self.resident.values())
        return sizes[-1] / sizes[0] - 1

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "requests": self.tally.requests,
            "by_status_class": self.tally.by_class(),
            "by_status": {str(status): number for status, number in sorted(self.tally.statuses.items())},
            "by_kind": self.by_kind,
            "answers_of_500_and_more": self.tally.failures(),
            "failures": self.failures,
            "resident_bytes": {str(requests): size for requests, size in self.resident.items()},
            "growth": round(self.growth, 4),
            "notes": self.notes,
        }


class Session:
    """One server under one sequence of requests, which the seed decides and the deadline ends."""

    def __init__(self, url: str, number: int, deadline: float) -> None:
        self.url = url
        self.number = number
        self.deadline = deadline
        self.was_cut = False

    def draw(self, name: str, strategy: Any, examples: int, ask: Callable[[Any], None], report: Report) -> None:
        """Ask for so many examples; of a failure the smallest one that hypothesis finds is noted."""
        before = report.tally.requests

        @seed(self.number)
        @settings(
            max_examples=max(examples, 1),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(strategy)
        def one(example: Any) -> None:
            if time.monotonic() < self.deadline:
                ask(example)
            else:
                self.was_cut = True

        try:
            one()
        except BadAnswerError as error:
            report.failures.append(
                f"{name}: {error}" + "".join(f"\n    {note}" for note in getattr(error, "__notes__", ()))
            )
        report.by_kind[name] = report.by_kind.get(name, 0) + report.tally.requests - before


def main() -> int:
    """Fuzz, report, and say by the exit code whether it held."""
    arguments = _arguments()
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        apart(write_model, Path(folder, NAME, "1"))
        log, port = Path(folder, "server.log"), free_port()
        command = [sys.executable, "serve.py", "--engine=embedded", f"--model_base_path={Path(folder, NAME)}"]
        command += [f"--model_name={NAME}", f"--rest_api_port={port}", "--access_log"]
        with running(command, port, f"/v1/models/{NAME}", log) as process:
            session = Session(f"http://127.0.0.1:{port}", arguments.seed, time.monotonic() + arguments.seconds)
            _fuzz(session, process.pid, port, arguments.requests, report)
            if process.poll() is not None:
                report.failures.append(f"the server ended with {process.returncode}")
        report.failures += [f"in the server's log: {line}" for line in _faults(log)]
        if session.was_cut:
            report.notes.append(f"ended by the limit of {arguments.seconds} s")
        _fuzz_decoders(arguments.decoder_seconds, arguments.seed, Path(folder), report)
    return _tell(report, arguments.requests, arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5_000, help="how many at least, after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600, help="the longest that the requests may take")
    parser.add_argument("--decoder-seconds", type=int, default=20, help="how long atheris fuzzes the decoders")
    parser.add_argument("--json", type=Path, help="write the report there, too")
    return parser.parse_args()


def _fuzz(session: Session, pid: int, port: int, requests: int, report: Report) -> None:
    """The warm-up, then every kind of request; memory is read at each quarter.

    A tenth more are drawn than asked for: hypothesis leaves out what it has drawn before, and one route has one form.
    """
    warm_up = Report()
    with closing(Asker("127.0.0.1", port, warm_up.tally)) as asker:
        for name, (strategy, share) in KINDS.items():
            session.draw(name, strategy, round(WARM_UP * share), asker.ask, warm_up)
    report.failures += warm_up.failures
    report.resident[0] = settled_bytes(pid)
    for quarter in range(4):
        _fuzz_once(session, port, requests / 4 * 1.1, quarter + 1, report)
        report.resident[report.tally.requests] = settled_bytes(pid) if quarter == 3 else resident_bytes(pid)


def _fuzz_once(session: Session, port: int, requests: float, number: int, report: Report) -> None:
    turn = Session(session.url, session.number * 100 + number, session.deadline)
    with closing(Asker("127.0.0.1", port, report.tally)) as asker:
        turn.draw("damaged HTTP", DAMAGED_HTTP, round(requests * DAMAGED_SHARE), asker.glimpse, report)
        rest = requests * (1 - SCHEMA_SHARE - DAMAGED_SHARE)
        for name, (strategy, share) in KINDS.items():
            turn.draw(name, strategy, round(rest * share), asker.ask, report)
    _fuzz_schema(turn, round(requests * SCHEMA_SHARE), report)
    session.was_cut |= turn.was_cut


def _fuzz_schema(session: Session, requests: int, report: Report) -> None:
    if find_spec("schemathesis") is None:
        report.notes.append("schemathesis is not installed: no requests from the OpenAPI schema")
        return
    import fuzz_schema

    operations = fuzz_schema.operations()
    ask = fuzz_schema.asker(session.url, report.tally)
    for label, strategy in operations:
        session.draw("schemathesis", strategy, requests // len(operations) + 1, ask, report)
        if report.failures and report.failures[-1].startswith("schemathesis:"):
            report.failures[-1] = f"{label}: {report.failures[-1]}"


def _faults(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line[:500] for line in lines if _FAULTS.search(line)][:20]


def _fuzz_decoders(seconds: int, number: int, folder: Path, report: Report) -> None:
    if find_spec("atheris") is None:
        report.notes.append("atheris is not installed: the decoders were not fuzzed in process")
        return
    seeds = folder / "seeds"
    seeds.mkdir()
    for index, text in enumerate(_SEEDS):
        (seeds / str(index)).write_bytes(text)
    command = [sys.executable, str(PROJECT / "benchmarks/fuzz_decoders.py"), str(seeds), f"-seed={number + 1}"]
    command += [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", f"-artifact_prefix={folder}/"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    runs = re.search(r"Done (\d+) (?:runs )?in", run.stderr) or re.search(
        r"stat::number_of_executed_units:\s*(\d+)", run.stderr
    )
    report.by_kind["atheris, in process"] = int(runs[1]) if runs else 0
    if run.returncode != 0 or not runs:
        report.failures.append(f"atheris ended with {run.returncode}: {run.stderr[-3_000:]}")


_SEEDS = (
    b'{"instances": ["a", {"b64": "YWJj"}]}',
    b'{"signature_name": "two", "instances": [{"a": 1.5, "b": 2}]}',
    b'{"inputs": {"a": [1, NaN, -Infinity], "b": [1, 2, 3]}}',
    b'{"inputs": [[[1, 2, 3]]]}',
    b'{"instances": [{"flag": true, "count": -1}]}',
    b'{"instances": ["\\ud83d\\ude00 \\u00e4 \\n"]}',
)


def _tell(report: Report, wanted: int, path: Path | None) -> int:
    if path is not None:
        path.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    print(f"{report.tally.requests} requests after a warm-up of {WARM_UP}")
    for name, number in report.by_kind.items():
        print(f"  {number:>7}  {name}")
    print("answers:", ", ".join(f"{number} {name}" for name, number in report.tally.by_class().items()))
    print(f"answers of 500 and more, but for the documented: {report.tally.failures()}")
    sizes = " -> ".join(f"{size / 2**20:.0f}" for size in report.resident.values())
    print(f"memory of the server, MiB: {sizes} ({report.growth:+.1%})")
    problems = list(report.failures)
    if report.tally.requests < wanted:
        problems.append(f"only {report.tally.requests} of {wanted} requests")
    if report.growth > MAX_GROWTH:
        problems.append(f"the server's memory grew by {report.growth:.1%}; {MAX_GROWTH:.0%} is allowed")
    for line in (*report.notes, *problems):
        print(line)
    print("it held" if not problems else "IT DID NOT HOLD")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
