"""All systems on the same conversations in one run: started together, measured in rounds, compared."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results, schedule, systems
from benchmarks.results import Figure
from benchmarks.schedule import Measured, Plan, stack_name
from benchmarks.stack import Stack
from benchmarks.workload import Workload, write_prompts
from verdictree.runtime.local_guard import LocalGuard


@dataclass(frozen=True)
class Options:
    """What the command line says; `repositories` by precision, the main one first."""

    repositories: Mapping[str, Path]
    checkpoint: str
    perf_analyzer: Path
    rivals: Path
    output: Path
    plan: Plan
    quick: bool


def compare(
    options: Options,
    guard: LocalGuard,
    workloads: Mapping[str, Workload],
    figures: Callable[[Measured], list[Figure]],
    say: Callable[[str], None],
) -> tuple[list[Figure], dict[str, Any]]:
    """Measure everything that answers conversations; return its figures, and what follows from them.

    `guard` is the main release, which tokenizes for all; `figures` turns runs into figures.
    """
    precision = next(iter(options.repositories))
    cores = len(os.sched_getaffinity(0))
    bare = [systems.bare_session(name, path, tuple(sorted({1, cores}))) for name, path in options.repositories.items()]
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as undo:
        prompts = Path(scratch) / "prompts.json"
        write_prompts(guard, workloads, prompts)
        others = () if options.quick else systems.rivals(options.rivals, options.checkpoint, prompts)
        programs, absent = undo.enter_context(systems.started((*bare, *others), Path(scratch)))
        stacks = {
            name: undo.enter_context(Stack(path, options.perf_analyzer)) for name, path in options.repositories.items()
        }
        measured = schedule.measure(options.plan, stacks, programs, workloads, say)
        ratios = results.ratios(measured, precision, cores)  # before rates that only our stack is put to
        ours, saturation = stack_name(precision), None
        if not options.quick:
            say("Poisson arrivals")
            workload = workloads["production"]
            saturation = statistics.median(results.best_rates(measured)[ours, workload.mix])
            schedule.sweep_rates(options.plan, ours, stacks[precision], workload, saturation, measured)
    summarized = figures(measured)
    return summarized, {
        "versions": {program.name: program.version for program in programs.values()},
        "absent": absent | measured.absent,
        "ready_s": {name: stack.ready_s for name, stack in stacks.items()},
        "saturation_requests_per_s": saturation,
        "steady": results.steady(summarized, schedule.poisson(schedule.STEADY)) if saturation else None,
        "ratios": ratios,
    }
