"""Swap versions under a steady load: does one request fail, or get an answer of neither version?

    python benchmarks/version_swap.py --seconds 60
    python benchmarks/version_swap.py --export artifacts/exports/sentiment-rt/1

Starts `serve.py` on a folder of its own and puts a new version there every few seconds, in turn by renaming a
whole folder, as one should, and by slowly copying file by file into place, as people do. The toy's answer names
its version; with `--export` every version is a copy, and answers as the first one did. Then the server is killed
(kill -9) while it loads a version, and a copy is killed on its way: the next start has to serve the last whole
version. Exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
NAME = "swapped"
CONNECTIONS = 8
TEXTS = [" ".join(["word"] * words) for words in (1, 2, 3, 5, 8, 13)]
START_SECONDS = 180
WARM_UP_RECORDS = 1000  # as many as TensorFlow Serving takes: the toy then loads slowly enough to be killed meanwhile


# --- models ---


def write_toy(folder: Path, version: int, records: int = 0) -> None:
    """Write a SavedModel that says its version, held by a variable, and the version times the length of the text."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

    module = tf.Module()
    module.version = tf.Variable(float(version))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def answer(text: tf.Tensor) -> dict[str, tf.Tensor]:
        length = tf.cast(tf.strings.length(text), tf.float32)
        return {"version": module.version * tf.ones_like(length), "score": module.version * length}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": answer})
    (folder / "assets.extra").mkdir()
    request = predict_pb2.PredictRequest(model_spec=model_pb2.ModelSpec(name=NAME))
    request.inputs["text"].CopyFrom(tf.make_tensor_proto(["a text"] * 5000))
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for _ in range(records):
            writer.write(log.SerializeToString())


def copy_slowly(source: Path, target: Path, seconds: float) -> None:
    """Copy piece by piece straight into place: for some seconds the folder holds half of a version."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    pieces = 4
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        size = max(math.ceil(len(content) / pieces), 1)
        with copy.open("wb", buffering=0) as out:
            for start in range(0, len(content), size):
                time.sleep(seconds / len(files) / pieces)
                out.write(content[start : start + size])


def rename_into_place(source: Path, target: Path) -> None:
    hidden = target.with_name(f"writing-{target.name}")
    shutil.copytree(source, hidden)
    hidden.rename(target)


# --- the server ---


class Server:
    """`serve.py` in a process of its own, on loopback."""

    def __init__(self, base_path: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        command = [sys.executable, str(PROJECT / "serve.py"), "--model_base_path", str(base_path)]
        command += ["--model_name", NAME, "--rest_api_port", str(self.port)]
        with log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def states(self) -> dict[int, str]:
        """The versions and their states; empty while the server cannot be reached."""
        try:
            _, answer = exchange(self.connect(), "GET", f"/v1/models/{NAME}")
        except OSError:
            return {}
        return {int(status["version"]): status["state"] for status in answer.get("model_version_status", [])}

    def wait_for(self, version: int, seconds: float = START_SECONDS) -> float:
        """Return the seconds until that version is available. Raises `TimeoutError`."""
        started = time.monotonic()
        while self.states().get(version) != "AVAILABLE":
            if self.process.poll() is not None or time.monotonic() - started > seconds:
                raise TimeoutError(f"version {version} is not available after {seconds:.0f} s: {self.states()}")
            time.sleep(0.05)
        return time.monotonic() - started

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextlib.contextmanager
def served(base_path: Path, log: Path) -> Iterator[Server]:
    server = Server(base_path, log)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def exchange(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection.request(method, path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


# --- the load ---


@dataclass
class Load:
    """What the connections asked and were answered; `allowed` are the versions that may answer right now."""

    rate: float  # requests a second and connection
    expected: dict[str, Any] = field(default_factory=dict)  # by text; empty for the toy, whose answers tell
    allowed: tuple[int, ...] = (1,)
    answers: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def keep_asking(self, server: Server, seed: int) -> None:
        """One keep-alive connection at a steady rate; what went wrong is kept, and the connection made anew."""
        chance, connection, newest = random.Random(seed), server.connect(), 0
        while not self.stop.wait(chance.expovariate(self.rate)):
            text, allowed = chance.choice(TEXTS), self.allowed
            started = time.perf_counter()
            try:
                status, answer = exchange(connection, "POST", f"/v1/models/{NAME}:predict", {"instances": [text]})
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection = server.connect()
                continue
            self.seconds.append(time.perf_counter() - started)
            version = self._check(text, status, answer, {*allowed, *self.allowed}, newest)
            newest = max(newest, version)

    def _check(self, text: str, status: int, answer: Any, allowed: set[int], newest: int) -> int:
        """Return the version that answered (0: it cannot be told, or the answer is wrong and noted as such)."""
        if status != 200:
            self.failures.append(f"{status}: {answer}")
            return 0
        (row,) = answer["predictions"]
        if self.expected:
            if not is_close(row, self.expected[text]):
                self.failures.append(f"{text!r}: {row} instead of {self.expected[text]}")
            self.answers[0] += 1
            return 0
        version = int(row["version"])
        self.answers[version] += 1
        if version not in allowed or version < newest or row["score"] != version * len(text):
            self.failures.append(f"{text!r}: {row}; allowed are {sorted(allowed)}, {newest} answered before")
        return version


def is_close(left: Any, right: Any) -> bool:
    """Equal, floats to 1e-5."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_close(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(is_close, left, right))
    return math.isclose(left, right, abs_tol=1e-5) if isinstance(left, float) else left == right


def swap(base_path: Path, sources: list[Path], arguments: argparse.Namespace, log: Path) -> list[str]:
    """The first part; returns what failed."""
    with served(base_path, log) as server:
        server.wait_for(1)
        load = Load(arguments.rate / CONNECTIONS)
        if arguments.export:
            for text in TEXTS:
                _, answer = exchange(server.connect(), "POST", f"/v1/models/{NAME}:predict", {"instances": [text]})
                load.expected[text] = answer["predictions"][0]
        clients = [threading.Thread(target=load.keep_asking, args=(server, seed)) for seed in range(CONNECTIONS)]
        for client in clients:
            client.start()
        memory = server.memory()
        try:
            put_versions(server, load, base_path, sources, arguments.every)
        except TimeoutError as error:
            load.failures.append(str(error))
        load.stop.set()
        for client in clients:
            client.join()
        report(load, memory, server.memory())
        if (code := server.end(signal.SIGTERM)) != 0:
            load.failures.append(f"after SIGTERM the server ended with {code}")
        return load.failures


def put_versions(server: Server, load: Load, base_path: Path, sources: list[Path], every: float) -> None:
    due = time.monotonic() + every
    for version, source in enumerate(sources, start=2):
        time.sleep(max(due - time.monotonic(), 0))
        due += every
        load.allowed = (version - 1, version)
        how = copy_slowly if version % 2 else rename_into_place
        started = time.monotonic()
        if how is copy_slowly:
            copy_slowly(source, base_path / str(version), seconds=every / 4)
        else:
            rename_into_place(source, base_path / str(version))
        server.wait_for(version, seconds=4 * every + 30)
        print(f"version {version}: {how.__name__}, available after {time.monotonic() - started:.1f} s", flush=True)
        shutil.rmtree(base_path / str(version - 1))
    time.sleep(max(due - time.monotonic(), 0))


def report(load: Load, memory_before: float, memory_after: float) -> None:
    ordered = sorted(load.seconds)
    p50, p99, worst = (ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000 for share in (0.5, 0.99, 1))
    print(f"requests {len(ordered)}, failures {len(load.failures)}")
    if not load.expected:
        print(
            "answers by version:", ", ".join(f"{version}: {load.answers[version]}" for version in sorted(load.answers))
        )
    print(f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {worst:.1f} ms")
    print(f"memory of the server {memory_before:.0f} MB before, {memory_after:.0f} MB after")


# --- crashes ---


def crash(folder: Path, log: Path) -> list[str]:
    """The second part: kill -9 during a copy and during a load; returns what failed."""
    base_path, failures = folder / "crashed", []
    for version in (1, 2, 3):
        write_toy(folder / f"crash-{version}", version, records=WARM_UP_RECORDS if version == 3 else 0)
    rename_into_place(folder / "crash-1", base_path / "1")
    kill_a_copy(folder / "crash-2", base_path / "2")
    with served(base_path, log) as server:
        failures += check_start(server, 1, "a copy of version 2 was killed")
        rename_into_place(folder / "crash-3", base_path / "3")
        failures += kill_while_loading(server, 3)
    with served(base_path, log) as server:
        failures += check_start(server, 3, "the server was killed while it loaded version 3")
    return failures


def kill_a_copy(source: Path, target: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import version_swap as s, pathlib as p;"
    program += "s.copy_slowly(p.Path(sys.argv[1]), p.Path(sys.argv[2]), seconds=20)"
    with subprocess.Popen([sys.executable, "-c", program, str(source), str(target)]) as process:
        while not list(target.glob("saved_model.pb")):
            time.sleep(0.05)
        process.kill()
    if list(target.glob("variables/*.index")):
        raise RuntimeError("the copy was through before it could be killed")


def kill_while_loading(server: Server, version: int) -> list[str]:
    """Kill the server as soon as it says that it loads this version."""
    end = time.monotonic() + START_SECONDS
    while (state := server.states().get(version)) != "LOADING":
        if state in ("AVAILABLE", "END") or time.monotonic() > end:
            return [f"version {version} was not seen loading: {state}"]
        time.sleep(0.005)
    server.end(signal.SIGKILL)
    return []


def check_start(server: Server, version: int, what: str) -> list[str]:
    """Does the started server answer with the version that is the last whole one?"""
    try:
        server.wait_for(version)
        text = TEXTS[1]
        status, answer = exchange(server.connect(), "POST", f"/v1/models/{NAME}:predict", {"instances": [text]})
    except TimeoutError as error:
        return [f"{what}: {error}"]
    expected = {"predictions": [{"version": version, "score": version * len(text)}]}
    print(f"{what}: the next start serves {server.states()}", flush=True)
    return [] if (status, answer) == (200, expected) else [f"{what}: {status} {answer} instead of {expected}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long versions are swapped")
    parser.add_argument("--every", type=float, default=5, help="seconds from one version to the next")
    parser.add_argument("--rate", type=float, default=200, help=f"requests a second over {CONNECTIONS} connections")
    parser.add_argument("--export", type=Path, help="a version folder to serve copies of, instead of the toy")
    parser.add_argument("--no-crashes", action="store_true", help="only swap versions")
    arguments = parser.parse_args()
    swaps = max(int(arguments.seconds / arguments.every), 1)
    with tempfile.TemporaryDirectory(prefix="version_swap-") as name:
        folder = Path(name)
        sources = [arguments.export or folder / f"toy-{version}" for version in range(1, swaps + 2)]
        if arguments.export is None:
            for version, source in enumerate(sources, start=1):
                write_toy(source, version)
        (folder / "models").mkdir()
        (folder / "crashed").mkdir()
        log = folder / "server.log"
        rename_into_place(sources[0], folder / "models" / "1")
        failures = swap(folder / "models", sources[1:], arguments, log)
        if not arguments.no_crashes:
            failures += crash(folder, log)
        for failure in failures[:20]:
            print("FAILED", failure)
        if failures:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
        return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
