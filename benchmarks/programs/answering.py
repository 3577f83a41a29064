"""The protocol of a measured program: one JSON line in says what to run, one JSON line out what happened.

The first line out says that the program is loaded and what it is. Then, for each line
`{"mix": …, "size": …, "seconds": …}` in, the program runs conversations of the mix, `size` at a time, for at least so
many seconds, and answers with `{"latencies_ms": [one a request], "seconds": …, …}`. The first run warms up.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

# Runs one batch of prompts; returns what it counted (tokens computed, tokens generated, …).
RunBatch = Callable[[Sequence[Any]], dict[str, float]]
# Runs `size` prompts at a time for so many seconds; returns the answer.
Measure = Callable[[Iterator[Any], int, float], dict[str, Any]]


@dataclass(frozen=True)
class Prompts:
    """What the rivals read: `mixes` maps a mix to whole prompts in token ids, whose answers end with `end_tokens`."""

    mixes: dict[str, list[list[int]]]
    end_tokens: list[int]
    labels: list[str]

    @staticmethod
    def read(path: str) -> Prompts:
        """The file that `benchmarks.workload.write_prompts` wrote."""
        return Prompts(**json.loads(Path(path).read_text()))


@dataclass(frozen=True)
class Loaded:
    """A program that is ready: what it is, the prompts of each mix, and how it runs them."""

    version: str
    prompts: Mapping[str, Sequence[Any]]
    measure: Measure


def answer(load: Callable[[], Loaded]) -> None:
    """Load the program, then speak the protocol on standard input and output until the input ends."""
    channel = _private_output()
    loaded = load()
    _say(channel, {"version": loaded.version})
    # Going on where the last run stopped keeps the conversations of one run and the next distinct.
    endless = {mix: itertools.cycle(them) for mix, them in loaded.prompts.items()}
    for line in sys.stdin:
        order = json.loads(line)
        _say(channel, loaded.measure(endless[order["mix"]], order["size"], order["seconds"]))


def in_batches(run_batch: RunBatch) -> Measure:
    """A measure that runs one batch after the other; each request of a batch has the batch's latency."""

    def measure(prompts: Iterator[Any], size: int, seconds: float) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        latencies: list[float] = []
        start = now = time.perf_counter()
        while not latencies or now - start < seconds:
            batch = list(itertools.islice(prompts, size))
            before = time.perf_counter()
            counts.update(run_batch(batch))
            now = time.perf_counter()
            latencies += [1000 * (now - before)] * size
        return {"latencies_ms": latencies, "seconds": now - start, **counts}

    return measure


def side_by_side(run_one: Callable[[Any], dict[str, float]]) -> Measure:
    """A measure that runs `size` prompts at any time, each in a thread of its own."""

    def measure(prompts: Iterator[Any], size: int, seconds: float) -> dict[str, Any]:
        counts: Counter[str] = Counter()
        latencies: list[float] = []
        lock = threading.Lock()
        start = time.perf_counter()

        def run_on() -> None:
            now = start
            while now == start or now - start < seconds:
                with lock:
                    prompt = next(prompts)
                before = time.perf_counter()
                counted = run_one(prompt)
                now = time.perf_counter()
                with lock:
                    counts.update(counted)
                    latencies.append(1000 * (now - before))

        with ThreadPoolExecutor(size) as threads:
            for running in [threads.submit(run_on) for _ in range(size)]:
                running.result()
        return {"latencies_ms": latencies, "seconds": time.perf_counter() - start, **counts}

    return measure


def _private_output() -> TextIO:
    # Libraries print to standard output; only answers may reach the reader.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _say(channel: TextIO, document: dict[str, Any]) -> None:
    print(json.dumps(document), file=channel, flush=True)
