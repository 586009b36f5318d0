"""Part (d): the same application behind several ASGI servers, event loops, numbers of threads and of processes."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import one_connection
from servers import embedded, free_port, running
from serving_models import TOY, apart, write_toy
from serving_parts import Material, full_speed, ours

APPLICATION = "choice_app:make"
THREADS = 8


@dataclass(frozen=True)
class Choice:
    """One way to run the application."""

    server: str = "uvicorn"
    http: str = "httptools"
    loop: str = "uvloop"
    threads: int = THREADS
    processes: int = 1

    @property
    def name(self) -> str:
        http = f" {self.http}" if self.server == "uvicorn" else ""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{self.server}{http} {self.loop}, {threads}, {processes}"

    def command(self, port: int) -> list[str]:
        """How it is started."""
        common = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(self.processes), "--loop", self.loop]
        if self.server == "granian":
            return [
                "granian",
                "--interface",
                "asgi",
                "--factory",
                *common,
                "--no-ws",
                "--log-level",
                "error",
                APPLICATION,
            ]
        quiet = ["--log-level", "error", "--no-access-log", "--lifespan", "off", "--ws", "none"]
        return ["uvicorn", "--factory", *common, "--http", self.http, *quiet, APPLICATION]


def choices() -> Iterator[Choice]:
    """One thing changed at a time."""
    yield Choice(http="h11", loop="asyncio")
    yield Choice(loop="asyncio")
    yield Choice()
    if importlib.util.find_spec("granian"):
        yield Choice(server="granian")
    for threads in (1, 2, 4, 16):
        yield Choice(threads=threads)
    yield Choice(processes=2)


def server_choices(material: Material) -> dict[str, Any]:
    """Rates and medians of the toy with 1 and with 32 connections."""
    base = material.folder / "models" / TOY
    if not base.is_dir():
        apart(write_toy, base)
    found: dict[str, Any] = {}
    with embedded(base, TOY, material.log("choices")) as url:
        _keep(found, "serve.py, with all that stands around the application", url, material)
    for choice in choices():
        port = free_port()
        environment = {"CHOICE_NAME": TOY, "CHOICE_BASE_PATH": str(base), "CHOICE_THREADS": str(choice.threads)}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
        with running(choice.command(port), port, f"/v1/models/{TOY}", material.log("choices"), environment):
            _keep(found, choice.name, f"http://127.0.0.1:{port}/v1/models/{TOY}:predict", material)
    return found


def _keep(found: dict[str, Any], name: str, url: str, material: Material) -> None:
    target = ours(url)
    one_connection(target, material.size.requests)
    steps = {str(number): full_speed(target, number, material.size.seconds) for number in (1, 32)}
    found[name] = steps
    material.say(f"(d) {name}: {steps['32']['rate']:.0f}/s with 32 connections, {steps['1']['rate']:.0f} with 1")
