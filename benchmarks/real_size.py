"""A whole rollout with a guard of real size, under light load: what it takes, and whether anything fails.

    python -m benchmarks.real_size .bench/real-size

Weights are random, in exactly the shape of Llama-Guard-3-1B; the folder keeps the export, which takes minutes and some
13 GB of memory. The candidate is the same guard with a policy more, so that a second graph is loaded beside the first.
One caller asks all the time. The last line is one JSON document: seconds to ready, resident megabytes with one release
and with two, and for each step its seconds, the requests that ended in it, how many of them failed, and the median and
99th percentile of their latencies.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import machine, random_checkpoint
from benchmarks.shapes import SHAPES
from verdictree.conversation import Conversation, Message
from verdictree.releases.repository import releases
from verdictree_client import GuardClient, GuardError, Retries
from verdictree_client.rollout import Rollout
from verdictree_export.checkpoints.source import EMBEDDED

_POLICIES = Path(__file__).with_name("policies") / "llama-guard-3-sized.yaml", Path("policies/children.yaml")
_SHAPE = "llama-guard-3-1b"
_QUIET_SECONDS = 45.0
_DEADLINE = 120.0  # of the caller: on two cores, such a guard takes seconds for a request
_CONVERSATIONS = [Conversation((Message("user", f"What is the capital of country number {i}?"),)) for i in range(4)]


@dataclass
class Load:
    """One caller who asks again as soon as it is answered, and what became of it."""

    url: str
    ended: threading.Event = field(default_factory=threading.Event)
    results: list[tuple[float, float, str]] = field(default_factory=list)

    def run(self) -> None:
        """Ask until ended."""
        with GuardClient(self.url, deadline=_DEADLINE, retries=Retries(limit=0)) as client:
            while not self.ended.is_set():
                start, error = time.perf_counter(), ""
                try:
                    client.classify("How do I boil an egg?")
                except GuardError as exc:
                    error = str(exc)
                self.results.append((time.perf_counter(), time.perf_counter() - start, error))

    def since(self, begin: float) -> dict[str, Any]:
        """Of the requests that ended since `begin`: how many, failures, milliseconds."""
        ended = [(seconds, error) for end, seconds, error in self.results if end >= begin]
        milliseconds = [1000 * seconds for seconds, _ in ended] or [0.0]
        return {
            "requests": len(ended),
            "failed": sum(bool(error) for _, error in ended),
            "p50_ms": round(float(np.median(milliseconds))),
            "p99_ms": round(float(np.quantile(milliseconds, 0.99))),
        }


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Export a random guard of Llama-Guard-3-1B's shape into FOLDER, if it is not there, and roll out a second one."""
    repository = folder / "repository"
    _make_releases(folder, repository)
    command = [_program(), "serve", "--repository", str(repository), "--json", "--grpc-port", "0"]
    command += ["--metrics-port", "0", "--health-port", "0", "--self-check-seconds", "0"]
    command += ["--deadline", f"{_DEADLINE:g}"]  # a queue that is made for callers in a hurry would refuse this guard's
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise click.ClickException("the server did not start; it says why above")
            said = json.loads(line)
            document: dict[str, Any] = {"machine": machine.describe(), "shape": _SHAPE}
            document["ready_s"] = round(time.perf_counter() - start, 1)
            with _loaded(said["grpc"]) as load, Rollout(repository, said["grpc"]) as rollout:
                document |= _rolled_out(rollout, load, said["pid"])
        finally:
            server.terminate()
    document["exit_status"] = server.returncode
    click.echo(json.dumps(document))


def _rolled_out(rollout: Rollout, load: Load, group: int) -> dict[str, Any]:
    memory = {"one_release_mb": round(machine.resident_megabytes(group))}

    def split(start: Callable[[float], None], fraction: float) -> None:
        start(fraction)
        time.sleep(_QUIET_SECONDS)
        start(0.0)

    steps: list[tuple[str, Callable[[], object]]] = [
        ("before", lambda: time.sleep(_QUIET_SECONDS)),
        ("stage", lambda: rollout.stage(2)),
        ("staged", lambda: time.sleep(_QUIET_SECONDS)),
        ("compare", lambda: rollout.compare(_CONVERSATIONS)),
        ("shadow", lambda: split(rollout.shadow, 1.0)),
        ("canary", lambda: split(rollout.canary, 0.5)),
        ("promote", lambda: rollout.promote(force=True, reason="a trial")),
        ("rollback", lambda: rollout.rollback(reason="a trial")),
        ("retire", lambda: rollout.retire(2)),
    ]
    figures: dict[str, Any] = {}
    for name, step in steps:
        begin = time.perf_counter()
        step()
        figures[name] = {"seconds": round(time.perf_counter() - begin, 2), **load.since(begin)}
        click.echo(f"{name:<9} {figures[name]}", err=True)
        if name == "staged":
            memory["two_releases_mb"] = round(machine.resident_megabytes(group))
    return {**memory, "steps": figures, "failures": [error for *_, error in load.results if error]}


@contextlib.contextmanager
def _loaded(url: str) -> Iterator[Load]:
    load = Load(url)
    thread = threading.Thread(target=load.run)
    thread.start()
    try:
        yield load
    finally:
        load.ended.set()
        thread.join()


def _make_releases(folder: Path, repository: Path) -> None:
    own, more = map(str, _POLICIES)
    if 1 not in releases(repository):
        checkpoint = folder / "checkpoint"
        random_checkpoint.write(checkpoint, EMBEDDED, torch.float16, **(SHAPES[_SHAPE] or {}))
        options = ["--family", "instruct", "--policy", own, "--max-off-grammar", "1", "--max-tokens", "256"]
        subprocess.run([_program(), "export", str(checkpoint), *options, "--repository", str(repository)], check=True)
    if 2 not in releases(repository):
        subprocess.run([_program(), "policy", "add", more, "--repository", str(repository)], check=True)


def _program() -> str:
    return str(Path(sys.executable).with_name("verdictree"))


if __name__ == "__main__":
    main()
