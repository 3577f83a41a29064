"""What the gateway costs: the same requests by it and straight to Triton, turn by turn in one run.

Each round asks first one door and then the other, in an order that changes; a figure is the median of the rounds' own
ratios. The callers speak KServe v2 to both, in one event loop. The last line of the output is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from benchmarks import machine
from benchmarks.overload import Callers
from verdictree_gateway.settings import Settings
from verdictree_gateway.workers import GatewayProcesses
from verdictree_serving import TritonServer

_DEADLINE = 60.0


@dataclass(frozen=True)
class Cost:
    """Requests a second, and milliseconds at the median of a lone caller, by both doors; ratios are medians."""

    callers: int
    processes: int
    triton_rate: float
    gateway_rate: float
    rate_ratio: float
    triton_ms: float
    gateway_ms: float
    added_ms: float


async def measure(triton: str, gateway: str, rounds: int, seconds: float, callers: int, processes: int) -> Cost:
    """Ask both doors in turn."""
    doors = {"triton": Callers(triton, _DEADLINE), "gateway": Callers(gateway, _DEADLINE)}
    rates: dict[str, list[float]] = {name: [] for name in doors}
    lone: dict[str, list[float]] = {name: [] for name in doors}
    for door in doors.values():
        await _rate(door, 1.0, callers)
    for number in range(rounds):
        for name in sorted(doors, reverse=bool(number % 2)):
            rates[name].append(await _rate(doors[name], seconds, callers))
            lone[name].append(1000 * await _latency(doors[name], seconds))
    for door in doors.values():
        await door.close()
    ratios = [ours / theirs for ours, theirs in zip(rates["gateway"], rates["triton"], strict=True)]
    added = [ours - theirs for ours, theirs in zip(lone["gateway"], lone["triton"], strict=True)]
    median = statistics.median
    return Cost(
        callers=callers,
        processes=processes,
        triton_rate=median(rates["triton"]),
        gateway_rate=median(rates["gateway"]),
        rate_ratio=median(ratios),
        triton_ms=median(lone["triton"]),
        gateway_ms=median(lone["gateway"]),
        added_ms=median(added),
    )


async def _rate(door: Callers, seconds: float, callers: int) -> float:
    end, count = time.perf_counter() + seconds, 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            status, _ = await door.ask(_DEADLINE)
            assert status == "OK", status
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - start)


async def _latency(door: Callers, seconds: float) -> float:
    """The median of one caller's requests, in seconds."""
    end, taken = time.perf_counter() + seconds, []
    while time.perf_counter() < end:
        taken.append((await door.ask(_DEADLINE))[1])
    return statistics.median(taken)


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Of one measurement.")
@click.option("--callers", type=click.IntRange(min=1), default=4, show_default=True, help="For the rates.")
@click.option("--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Of the gateway.")
def main(repository: Path, rounds: int, seconds: float, callers: int, processes: int) -> None:
    """Serve REPOSITORY's pinned release, with a gateway before it, and ask both."""
    settings = Settings(triton=(), grpc_port=0, http_port=0, repository=str(repository))
    with TritonServer(repository) as server, GatewayProcesses(settings, processes) as gateway:
        gateway.start([server.grpc_address])
        doors = (server.grpc_address, gateway.grpc_address)
        cost = asyncio.run(measure(*doors, rounds, seconds, callers, processes))
    click.echo(machine.describe())
    click.echo(json.dumps(asdict(cost)))


if __name__ == "__main__":
    main()
