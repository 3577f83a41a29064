"""The order of measurements: all systems in turn, load by load, so that a slow minute of the machine hits all alike.

The production mix is measured at all loads, the other one (the worst case) at the heaviest only. Heaviest loads come
first, those of different systems beside each other: their runs in one round make the ratios.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.program import Program, ProgramFailed
from benchmarks.run import Run
from benchmarks.stack import Load, Stack
from benchmarks.systems import System
from benchmarks.workload import MIXES, Workload

RATES = (0.3, 0.5, 0.7, 0.85, 0.95)  # of the saturation rate
STEADY = 0.7  # the rate at which p99 is judged
_WARM_UP_SECONDS = 1.0


def poisson(share: float) -> str:
    """What a load of Poisson arrivals at this share of saturation is called."""
    return f"Poisson, {share:.0%} of saturation"


def at_a_time(size: int) -> str:
    """What the load of a program that runs so many conversations together is called."""
    return f"{size} at a time"


class Key(NamedTuple):
    """What was measured: whose requests, which mix, and how they came."""

    system: str
    mix: str
    load: str


@dataclass(frozen=True)
class Plan:
    """How much is measured: rounds, seconds for each measurement, and how many requests in flight at Triton."""

    rounds: int
    seconds: float
    concurrencies: tuple[int, ...]


@dataclass
class Measured:
    """The runs of each key, and why a system has none or fewer."""

    runs: dict[Key, list[Run]] = field(default_factory=lambda: defaultdict(list))
    absent: dict[str, str] = field(default_factory=dict)


def stack_name(precision: str) -> str:
    """What our stack at this precision is called in tables."""
    return f"Verdictree {precision}"


def measure(
    plan: Plan,
    stacks: Mapping[str, Stack],
    programs: Mapping[System, Program],
    workloads: Mapping[str, Workload],
    say: Callable[[str], None],
) -> Measured:
    """All rounds; `stacks` by precision, the main one first. A program that fails on the way is left out from then."""
    measured = Measured()
    for stack in stacks.values():
        stack.warm_up(workloads[MIXES[0]], plan.concurrencies[-1])
    for number in range(plan.rounds + 1):
        say(f"round {number} of {plan.rounds}" if number else "warm-up of the programs")
        runs = [_stack_runs(plan, precision, stack, workloads) for precision, stack in stacks.items() if number]
        for system, program in programs.items():
            if system.name not in measured.absent:
                seconds = (0.0 if system.brief else plan.seconds) if number else _WARM_UP_SECONDS
                runs.append(_program_runs(system, program, seconds, workloads, measured.absent))
        for one in itertools.chain.from_iterable(itertools.zip_longest(*runs)):
            if one and number:
                key, run = one
                measured.runs[key].append(run)
    return measured


def sweep_rates(plan: Plan, name: str, stack: Stack, workload: Workload, saturation: float, measured: Measured) -> None:
    """Poisson arrivals up to the saturation rate."""
    for share in RATES:
        rate = share * saturation
        for _ in range(plan.rounds if share == STEADY else 1):
            run = stack.run(workload, Load(rate=rate), 2 * plan.seconds)
            measured.runs[Key(name, workload.mix, poisson(share))].append(run)


def _stack_runs(
    plan: Plan, precision: str, stack: Stack, workloads: Mapping[str, Workload]
) -> Iterator[tuple[Key, Run]]:
    for mix, concurrency in _heaviest_first(plan.concurrencies, workloads):
        key = Key(stack_name(precision), mix, f"concurrency {concurrency}")
        yield key, stack.run(workloads[mix], Load(concurrency=concurrency), plan.seconds)


def _program_runs(
    system: System, program: Program, seconds: float, workloads: Mapping[str, Workload], absent: dict[str, str]
) -> Iterator[tuple[Key, Run]]:
    """The runs of one round; where the program fails they end, and `absent` says why."""
    try:
        for mix, size in _heaviest_first(system.sizes, MIXES[:1] if system.brief else workloads):
            yield Key(system.name, mix, at_a_time(size)), program.run(mix, size, seconds)
    except ProgramFailed as failure:
        absent[system.name] = str(failure)


def _heaviest_first(sizes: Sequence[int], mixes: Iterable[str]) -> Iterator[tuple[str, int]]:
    for mix in reversed(list(mixes)):
        for size in reversed(sizes) if mix == MIXES[0] else sizes[-1:]:
            yield mix, size
