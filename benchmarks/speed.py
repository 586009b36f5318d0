"""How fast our networks train and predict beside the same ones in PyTorch, and how their cost grows.

    python3 -m venv torchvenv && torchvenv/bin/pip install torch==2.13.0 numpy
    python benchmarks/speed.py --torch torchvenv/bin/python
    python benchmarks/speed.py --parts growth

Workers, one for each side, take turns on the machine, so that whatever else runs meets all of them. A ratio is the
peer's seconds over ours in one round; above 1 we are faster. Prints medians with quartiles of the rounds and writes
results.json and growth.png to `--output`. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from plots import plot_growth

HERE = Path(__file__).resolve().parent
MODELS = ("lstm", "transformer")
LENGTHS = (64, 128, 256, 512, 1024)
ROWS = (1_000, 3_000, 10_000, 30_000, 100_000)
# PyTorch's tuning guide advises an allocator that keeps memory: these settings make one of glibc's, as ours has it.
TUNED = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:glibc.malloc.top_pad=67108864"
SIZES: dict[str, Any] = {
    "vocabulary_size": 20_000,
    "embedding_dim": 128,
    "hidden_dim": 128,
    "bidirectional": False,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_dim": 512,
    "batch_size": 64,
    "predict_batch_size": 64,  # the peer's: 128 and 256 were no faster for it; ours is told none, as a user tells none
    "sequence_length": 256,
}


class Worker:
    """One side: a process that does what it is asked and answers with the seconds of each time."""

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent), **(environment or {})},
        )

    def seconds(self, what: str, model: str, times: int) -> list[float]:
        """Do it that many times."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "model": model, "times": times}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._process.args} ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    chosen = _parser().parse_args(arguments)
    output = chosen.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    results = output / "results.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    found["machine"] = machine()
    for part in chosen.parts:
        if part == "growth":
            found[part] = growth(chosen.models, chosen.quick)
            plot_growth(found[part], output / "growth.png")
        else:
            if chosen.torch is None:
                raise SystemExit("--torch: name the Python of an environment with torch; the docstring tells how")
            found[part] = beside(part, chosen)
        results.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="the Python of an environment that has torch")
    parser.add_argument(
        "--parts", nargs="+", choices=["train", "predict", "growth"], default=["train", "predict", "growth"]
    )
    parser.add_argument("--rounds", type=int, default=12, help="turns of each side")
    parser.add_argument("--times", type=int, default=4, help="steps, or passes over the file, in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the peer")
    parser.add_argument("--texts", type=int, default=2_000, help="rows of the file to predict")
    parser.add_argument("--bidirectional", action="store_true", help="LSTMs in both directions")
    parser.add_argument(
        "--models", nargs="+", default=["lstm", "transformer", "performer"], help="the last has no peer: for growth"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see whether it runs")
    parser.add_argument("--output", type=Path, default=Path("artifacts/benchmarks/speed"))
    return parser


def beside(part: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Take turns with the peer as it comes, and with the peer whose allocator is tuned."""
    found: dict[str, Any] = {}
    with _workers(chosen) as (ours, peers):
        for model in (model for model in MODELS if model in chosen.models):
            for worker in (ours, *peers.values()):
                worker.seconds(part, model, 2)  # compiles, warms up
            turns = [
                {name: float(np.mean(worker.seconds(part, model, chosen.times))) for name, worker in sides(ours, peers)}
                for _ in range(chosen.rounds)
            ]
            found[model] = {name: _summary(turns, name) for name in peers} | {"turns": turns}
            rows = (200 if chosen.quick else chosen.texts) if part == "predict" else SIZES["batch_size"]
            _print(part, model, found[model], rows / float(np.median([turn["ours"] for turn in turns])))
    return found


def sides(ours: Worker, peers: dict[str, Worker]) -> Iterator[tuple[str, Worker]]:
    yield "ours", ours
    yield from peers.items()


@contextlib.contextmanager
def _workers(chosen: argparse.Namespace) -> Iterator[tuple[Worker, dict[str, Worker]]]:
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.csv"
        count = 200 if chosen.quick else chosen.texts
        _run_ours("texts", str(texts), str(count))
        own = {"bidirectional": chosen.bidirectional, "threads": chosen.threads, "texts": str(texts)}

        def sizes(side: str) -> str:
            return json.dumps({**SIZES, **own, "answers": str(Path(folder) / f"answers-{side}.csv")})

        torch = [chosen.torch, str(HERE / "speed_torch.py")]
        ours = Worker([sys.executable, str(HERE / "speed_ours.py"), sizes("ours")])
        peers = {
            "torch": Worker([*torch, sizes("torch")]),
            "torch, malloc tuned": Worker([*torch, sizes("tuned")], {"GLIBC_TUNABLES": TUNED}),
        }
        try:
            yield ours, peers
        finally:
            for _, worker in sides(ours, peers):
                worker.close()


def _summary(turns: list[dict[str, float]], peer: str) -> dict[str, float]:
    ratios = [turn[peer] / turn["ours"] for turn in turns]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {"ratio": float(middle), "low": float(low), "high": float(high)}


def _print(part: str, model: str, found: dict[str, Any], rate: float) -> None:
    print(f"{part} {model}: ours {rate:,.0f} texts a second", flush=True)
    for peer, ratio in found.items():
        if peer != "turns":
            print(f"  {peer} / ours {ratio['ratio']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]", flush=True)


def growth(models: Sequence[str], quick: bool) -> dict[str, Any]:
    """Seconds a step against length, seconds and memory of the data against rows; a process for each figure."""
    found: dict[str, Any] = {"length": {}, "rows": {}}
    for model in models:
        for length in LENGTHS[:2] if quick else LENGTHS:
            answer = _run_ours("length", model, str(length), "16")
            found["length"].setdefault(model, {})[length] = answer
            milliseconds = 1e3 * float(np.median(answer["seconds"]))
            print(
                f"{model}, length {length}: {milliseconds:.0f} ms a step, peak {answer['peak_mb']:.0f} MB", flush=True
            )
    for rows in ROWS[:2] if quick else ROWS:
        found["rows"][rows] = answer = _run_ours("rows", str(rows))
        print(
            f"{rows:,} rows: prepared in {answer['prepare']:.1f} s, one pass {answer['pass']:.1f} s,"
            f" peak {answer['peak_mb']:.0f} MB",
            flush=True,
        )
    return found


def _run_ours(*arguments: str) -> Any:
    command = [sys.executable, str(HERE / "speed_ours.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    return {"platform": platform.platform(), "processor": platform.processor(), "cores": os.cpu_count()}


if __name__ == "__main__":
    raise SystemExit(main())
