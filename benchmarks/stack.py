"""Our stack: a release served by Triton, loaded by perf_analyzer over gRPC."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import machine
from benchmarks.counters import answered
from benchmarks.run import Run
from benchmarks.workload import Workload
from verdictree import wire
from verdictree.conversation import parse
from verdictree_client import GuardClient
from verdictree_serving import TritonServer

_WINDOWS = 3  # perf_analyzer's least; it reports their average
_LEAST_IN_WINDOW = 8  # requests, whatever the time that they take


@dataclass(frozen=True)
class Load:
    """How requests come: so many in flight at any time, or so many a second on average, at random (Poisson)."""

    concurrency: int | None = None
    rate: float | None = None

    def arguments(self) -> list[str]:
        """The options of perf_analyzer that say so."""
        if self.rate is None:
            return ["--concurrency-range", str(self.concurrency)]
        return ["--request-rate-range", f"{self.rate:.3f}", "--request-distribution", "poisson", "--async"]


class PerfAnalyzerFailed(Exception):
    """perf_analyzer did not measure; the message is its last line."""


class Stack:
    """A served repository; as a context manager it is ready inside and gone after."""

    def __init__(self, repository: Path, perf_analyzer: Path) -> None:
        """`perf_analyzer` is the binary; the libraries that it needs lie in `../lib` beside it."""
        self._perf_analyzer = perf_analyzer.resolve()
        self._undo = contextlib.ExitStack()
        self._server = TritonServer(repository)
        self.ready_s = 0.0
        self._least_window_s = 0.0

    def __enter__(self) -> Self:
        start = time.perf_counter()
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._server)
            self.ready_s = time.perf_counter() - start
            self._scratch = Path(undo.enter_context(tempfile.TemporaryDirectory()))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._undo.close()

    def warm_up(self, workload: Workload, concurrency: int) -> None:
        """Send some conversations, so many at a time; how fast they are answered tells how long to measure."""
        with GuardClient(self._server.grpc_address, deadline=600.0) as client:
            conversations = [parse(body.encode()) for body in workload.bodies[: 2 * concurrency]]
            start = time.perf_counter()
            list(client.classify_many(conversations, concurrency=concurrency))
            self._least_window_s = _LEAST_IN_WINDOW * (time.perf_counter() - start) / len(conversations)

    def run(self, workload: Workload, load: Load, seconds: float) -> Run:
        """Load the server for about so many seconds."""
        inputs = self._scratch / f"{workload.mix}.json"
        if not inputs.exists():
            inputs.write_text(json.dumps({"data": [{wire.REQUEST: [body]} for body in workload.bodies]}))
        report = self._scratch / "report.csv"
        report.unlink(missing_ok=True)
        before = answered(self._server)
        self._analyze(inputs, load, seconds, report)
        after = answered(self._server)
        with report.open() as lines:
            (row,) = csv.DictReader(lines)
        p50, p95, p99 = (float(row[f"p{p} latency"]) / 1000 for p in (50, 95, 99))
        return Run(
            requests=int(after - before),
            requests_per_s=float(row["Inferences/Second"]),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            resident_mb=machine.resident_megabytes(self._server.pid),
        )

    def _analyze(self, inputs: Path, load: Load, seconds: float, report: Path) -> None:
        window = max(seconds / _WINDOWS, self._least_window_s)
        command = [
            *(str(self._perf_analyzer), "-m", wire.MODEL, "-i", "grpc", "-u", self._server.grpc_address),
            *("--input-data", str(inputs), "-f", str(report), *load.arguments()),
            *("--measurement-interval", str(int(1000 * window)), "--max-trials", str(_WINDOWS)),
            # The machine decides how noisy it is; an unstable run is reported, not repeated without end.
            *("--stability-percentage", "999"),
        ]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self._perf_analyzer.parents[1] / "lib")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0 or not report.exists():
            raise PerfAnalyzerFailed((done.stderr or done.stdout).strip().splitlines()[-1])
