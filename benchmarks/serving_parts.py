"""What is measured: each function makes one part of the results, JSON-able."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import closed_loop, one_connection, open_loop
from load_target import Target
from servers import embedded, mlflow_server
from serving_models import LONG_TEXT, TEXTS, TOY, apart, grouping_ms, in_process_ms, save_for_mlflow, write_toy

LIMIT_MS = 100.0  # of the 99th percentile
LARGEST_RATE = 4000.0
NAME = "benchmark"
# No waiting for company: while the threads are busy the next batch gathers by itself, and a lone request goes at once.
BATCHING = """max_batch_size { value: 64 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
"""


@dataclass(frozen=True)
class Size:
    """How long things are measured: seconds for each load, and requests for each median."""

    seconds: float
    requests: int
    first_rate: float
    low_rate: float


FULL = Size(seconds=15, requests=1000, first_rate=25, low_rate=20)
QUICK = Size(seconds=1, requests=50, first_rate=50, low_rate=20)


@dataclass(frozen=True)
class Material:
    """What the parts share: the export's version folder, a folder for what they make, and a way to tell."""

    version: Path
    folder: Path
    size: Size
    say: Callable[[str], None]

    def base_path(self) -> Path:
        """A folder of versions that holds the export alone."""
        base = self.folder / "models" / NAME
        if not base.is_dir():
            shutil.copytree(self.version, base / "1")
        return base

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def batching(self) -> tuple[str, ...]:
        """The flags of a server that gathers requests into batches: as many threads as a batch may have rows.

        A request holds a thread until it is answered, so fewer threads make smaller batches.
        """
        parameters = self.folder / "batching.config"
        parameters.write_text(BATCHING, encoding="utf-8")
        return "--enable_batching", f"--batching_parameters_file={parameters}", "--rest_api_num_threads=64"


def ours(url: str, texts: Sequence[str] = TEXTS) -> Target:
    """Single-text requests as TensorFlow Serving takes them."""
    return Target(url, tuple(json.dumps({"instances": [text]}).encode() for text in texts), b'"predictions"')


# The forms in which MLflow's server takes a text; the one that it answers fastest is measured.
MLFLOW_FORMS: dict[str, Callable[[str], Any]] = {
    "dataframe_split": lambda text: {"columns": ["text"], "data": [[text]]},
    "dataframe_records": lambda text: [{"text": text}],
    "inputs": lambda text: {"text": [text]},
    "instances": lambda text: [{"text": text}],
}


def mlflow_target(url: str, form: str, texts: Sequence[str] = TEXTS) -> Target:
    """Single-text requests in one of MLflow's forms."""
    bodies = (json.dumps({form: MLFLOW_FORMS[form](text)}).encode() for text in texts)
    return Target(url, tuple(bodies), b'"predictions"')


def fastest_form(url: str, requests: int) -> str:
    """Return the form that MLflow's server answers fastest; one that it does not take is out."""
    medians = {}
    for form in MLFLOW_FORMS:
        result = one_connection(mlflow_target(url, form), requests)
        if not result.errors:
            medians[form] = result.percentile(50)
    return min(medians, key=lambda form: medians[form])


def rising_load(target: Target, size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """Find the highest rate at which the 99th percentile stays within the limit, by doubling and halving the gap.

    A rate that fails gets a second try: on a shared machine any second may be somebody else's.
    """
    steps: list[dict[str, Any]] = []

    def holds(rate: float) -> bool:
        return is_within(rate) or is_within(rate)

    def is_within(rate: float) -> bool:
        result = open_loop(target, rate, size.seconds)
        step = {"due_rate": round(rate, 1), **result.to_dict()}
        step["holds"] = not result.errors and step["p99_ms"] <= LIMIT_MS
        steps.append(step)
        say(f"{rate:7.1f}/s: p50 {step['p50_ms']:.1f} ms, p99 {step['p99_ms']:.1f} ms {step['errors'] or ''}")
        return bool(step["holds"])

    low, high = 0.0, size.first_rate
    while high <= LARGEST_RATE and holds(high):
        low, high = high, 2 * high
    for _ in range(3):
        middle = (low * high) ** 0.5 if low else high / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return {"highest_rate": round(low, 1), "steps": sorted(steps, key=lambda step: step["due_rate"])}


def against_mlflow(material: Material, workers: int) -> dict[str, Any]:
    """(a) The same export behind both servers: how much load each takes, and how long one text takes."""
    size, model = material.size, material.folder / "mlflow_model"
    material.say("(a) saving the export with MLflow")
    if not model.is_dir():
        apart(save_for_mlflow, material.version, model)
    found: dict[str, Any] = {"limit_ms": LIMIT_MS, "low_rate": size.low_rate, "mlflow_workers": workers}
    found["batching"] = BATCHING
    for name, flags in (("valence", ()), ("valence_batching", material.batching())):
        with embedded(material.base_path(), NAME, material.log(name), *flags) as url:
            found[name] = _under_load(name, ours(url), material)
    with mlflow_server(model, material.log("mlflow"), workers) as url:
        form = found["mlflow_form"] = fastest_form(url, max(size.requests // 10, 20))
        found["mlflow"] = _under_load("mlflow", mlflow_target(url, form), material)
    return found


def _under_load(name: str, target: Target, material: Material) -> dict[str, Any]:
    size = material.size
    material.say(f"(a) {name}")
    one_connection(target, size.requests // 5)
    alone = one_connection(target, size.requests)
    low = open_loop(target, size.low_rate, size.seconds)
    return {"one_connection": alone.to_dict(), "low": low.to_dict(), **rising_load(target, size, material.say)}


def over_http(material: Material) -> dict[str, Any]:
    """(b) What a request costs beyond calling the SavedModel in the process."""
    size = material.size
    inside = []
    with embedded(material.base_path(), NAME, material.log("cost")) as url:
        # Before and after, so that a machine that grows slower meanwhile does not look like a cost.
        inside.append(apart(in_process_ms, material.version, TEXTS, size.requests))
        http = one_connection(ours(url), size.requests)
        inside.append(apart(in_process_ms, material.version, TEXTS, size.requests))
    alone = sum(inside) / 2
    material.say(f"(b) in process {inside[0]:.3f} and {inside[1]:.3f} ms, over HTTP {http.percentile(50):.3f} ms")
    return {"in_process_ms": inside, "http": http.to_dict(), "cost_ms": round(http.percentile(50) - alone, 3)}


def toy(material: Material) -> dict[str, Any]:
    """(c) The toy with 1, 8 and 32 connections, by wrk where it is installed."""
    base = material.folder / "models" / TOY
    if not base.is_dir():
        apart(write_toy, base)
    found: dict[str, Any] = {"by": "wrk" if shutil.which("wrk") else "load.py"}
    with embedded(base, TOY, material.log("toy")) as url:
        one_connection(ours(url), material.size.requests)
        for connections in (1, 8, 32):
            found[str(connections)] = step = full_speed(ours(url), connections, material.size.seconds)
            material.say(f"(c) {connections:2} connections: {step['rate']:.0f}/s, p50 {step['p50_ms']:.2f} ms")
    return found


def full_speed(target: Target, connections: int, seconds: float) -> dict[str, Any]:
    """As many requests as are answered, by wrk where it is installed: it takes less of the machine than Python."""
    if not shutil.which("wrk"):
        return closed_loop(target, connections, seconds).to_dict()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f'wrk.method = "POST"\nwrk.body = {_lua(target.bodies[1])}\n')
        script.write('wrk.headers["Content-Type"] = "application/json"\n')
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(round(seconds), 1)}s", "--latency", "-s", script.name]
        printed = subprocess.run([*command, target.url], capture_output=True, text=True, check=True).stdout
    return read_wrk(printed)


def read_wrk(printed: str) -> dict[str, Any]:
    """The figures of what wrk prints; whatever is no answer of 200 is an error."""
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    found: dict[str, Any] = {}
    for share in ("50", "90", "99"):
        match = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)$", printed, re.MULTILINE)
        found[f"p{share}_ms"] = float(match[1]) * scale[match[2]] if match else None
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", printed, re.MULTILINE)
    found["rate"] = float(rate[1]) if rate else 0.0
    found["errors"] = re.findall(r"^\s+(Non-2xx.*|Socket errors.*)$", printed, re.MULTILINE)
    return found


def _lua(body: bytes) -> str:
    return "'" + body.decode().replace("\\", "\\\\").replace("'", "\\'") + "'"


def batching(material: Material) -> dict[str, Any]:
    """(e) Batching off and on, for short texts and with a long one now and then; and grouping by length."""
    found: dict[str, Any] = {"parameters": BATCHING}
    for name, flags in (("off", ()), ("on", material.batching())):
        with embedded(material.base_path(), NAME, material.log(f"batching_{name}"), *flags) as url:
            one_connection(ours(url), material.size.requests // 2)
            found[name] = _batched(url, material.size.seconds)
        for load, step in found[name].items():
            material.say(
                f"(e) batching {name}, {load}: {step['rate']:.0f}/s, short texts p50 {step['short_p50_ms']:.1f} ms"
            )
    found["one_request"] = apart(grouping_ms, material.version, 64, max(material.size.requests // 50, 3))
    material.say(f"(e) one request, ms: {found['one_request']}")
    return found


def _batched(url: str, seconds: float) -> dict[str, Any]:
    found = {}
    mixed = [LONG_TEXT, *TEXTS, *TEXTS[:7]]  # one in sixteen
    for load, texts, first_short in (("short", TEXTS, 0), ("short and long", mixed, 1)):
        for connections in (1, 8, 32):
            result = closed_loop(ours(url, texts), connections, seconds)
            short = result.of_bodies(first_short)
            figures = {f"short_p{share}_ms": round(short.percentile(share), 3) for share in (50, 99)}
            found[f"{load}, {connections} connections"] = {**result.to_dict(), **figures}
    return found
