"""What becomes of a server that is sent several times what it can bear.

Requests come at random (Poisson), whether the former ones are answered or not, as from many independent callers. Each
has a deadline, and sends three quarters of it along as the time that it will wait in a queue. Measured are

saturation   answers a second with as many requests in flight as pay, before and after: their mean
goodput      answers within the deadline a second, in windows of five seconds; also as a share of the saturation
p99          of the accepted requests' latencies
in vain      requests that were computed although nobody waited any more, as a share of all that were computed
recovery     seconds from the end of the load until a lone request is answered as fast as before, three times over
load's cores what the load, which is made on the same machine, took of its processors' time. The server had the others.

The last line of the output is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from benchmarks import machine
from benchmarks.counters import answered
from verdictree import wire
from verdictree_serving import TritonServer

_IN_FLIGHT = 8
_SATURATION_SECONDS = 6.0
_WINDOW_SECONDS = 5.0
_CHANNELS = 4
_AS_FAST = 3.0
_MOST_RECOVERY_SECONDS = 120.0
TEXTS = [f"Question {i}: " + "why " * (i % 7 + 1) + "?" for i in range(12)]


@dataclass
class Overload:
    """What one run found; rates are per second, times in seconds."""

    factor: float
    deadline_s: float
    seconds: float
    saturation: float = 0.0
    offered: float = 0.0
    goodput: float = 0.0
    goodput_by_window: list[float] = field(default_factory=list)
    p50_s: float = 0.0
    p99_s: float = 0.0
    in_vain: float = 0.0
    recovery_s: float = 0.0
    load_cores: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def least_goodput(self) -> float:
        """That of the worst window."""
        return min(self.goodput_by_window, default=0.0)

    @property
    def table(self) -> str:
        """The figures as a row under a header, in Markdown."""
        cells = {
            "load": f"{self.factor:g} × saturation, {self.seconds:g} s, deadline {self.deadline_s:g} s",
            "saturation": f"{self.saturation:.1f}/s",
            "goodput": f"{self.goodput / self.saturation:.0%}",
            "worst 5 s": f"{self.least_goodput / self.saturation:.0%}",
            "p99 of accepted": f"{self.p99_s:.2f} s",
            "in vain": f"{self.in_vain:.1%}",
            "recovery": f"{self.recovery_s:.1f} s",
            "load's cores": f"{self.load_cores:.2f} of {os.cpu_count()}",
        }
        lines = (" | ".join(cells), " | ".join("---" for _ in cells), " | ".join(cells.values()))
        return "\n".join(f"| {line} |" for line in lines)


class Callers:
    """Many callers of one server, in one event loop."""

    def __init__(self, url: str, deadline: float) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(url, options=options) for _ in range(_CHANNELS)]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]
        self._requests = [_request(text, deadline) for text in TEXTS]
        self._num_sent = 0

    async def ask(self, deadline: float) -> tuple[str, float]:
        """One request: the status, and how long it took."""
        self._num_sent += 1
        stub = self._stubs[self._num_sent % _CHANNELS]
        start = time.perf_counter()
        try:
            await stub.ModelInfer(self._requests[self._num_sent % len(TEXTS)], timeout=deadline)
        except grpc.aio.AioRpcError as exc:
            return exc.code().name, time.perf_counter() - start
        return "OK", time.perf_counter() - start

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()


def _request(text: str, deadline: float) -> pb.ModelInferRequest:
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    request = pb.ModelInferRequest(model_name=wire.MODEL)
    tensor = request.inputs.add(name=wire.REQUEST, datatype="BYTES")
    tensor.shape.extend([1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(body)) + body)
    request.parameters["timeout"].int64_param = int(wire.QUEUED_SHARE * deadline * 1e6)
    return request


async def measure(server: TritonServer, factor: float, seconds: float, deadline: float) -> Overload:
    """Load the server and say what became of it."""
    overload = Overload(factor, deadline, seconds)
    callers = Callers(server.grpc_address, deadline)
    alone = sorted([(await callers.ask(60.0))[1] for _ in range(10)])[5]
    overload.saturation = await _saturation(callers)
    computed, taken = answered(server), time.process_time()
    outcomes = await _flood(callers, factor * overload.saturation, seconds, deadline)
    end = time.perf_counter()
    overload.load_cores = (time.process_time() - taken) / seconds
    while time.perf_counter() - end < _MOST_RECOVERY_SECONDS:
        if all([(await callers.ask(60.0))[1] < _AS_FAST * alone for _ in range(3)]):
            break
    overload.recovery_s = time.perf_counter() - end
    _summarize(overload, outcomes)
    delivered = overload.statuses.get("OK", 0)
    # The requests that told the recovery are a handful; they count as computed for somebody.
    overload.in_vain = max(0.0, 1.0 - delivered / max(1.0, answered(server) - computed))
    overload.saturation = (overload.saturation + await _saturation(callers)) / 2
    await callers.close()
    return overload


async def _saturation(callers: Callers) -> float:
    end, count = time.perf_counter() + _SATURATION_SECONDS, 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await callers.ask(60.0)
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(_IN_FLIGHT)))
    return count / (time.perf_counter() - start)


async def _flood(callers: Callers, rate: float, seconds: float, deadline: float) -> list[tuple[str, float, float]]:
    """Status, latency and the moment of each answer, seconds after the begin."""
    outcomes: list[tuple[str, float, float]] = []
    begin = due = time.perf_counter()
    pending: set[asyncio.Task[None]] = set()

    async def one() -> None:
        status, latency = await callers.ask(deadline)
        outcomes.append((status, latency, time.perf_counter() - begin))

    while due - begin < seconds:
        due += random.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one())
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    return outcomes


def _summarize(overload: Overload, outcomes: list[tuple[str, float, float]]) -> None:
    latencies = sorted(latency for status, latency, _ in outcomes if status == "OK")
    windows = Counter(int(moment / _WINDOW_SECONDS) for status, _, moment in outcomes if status == "OK")
    whole = range(int(overload.seconds / _WINDOW_SECONDS))
    overload.offered = len(outcomes) / overload.seconds
    overload.goodput = len(latencies) / overload.seconds
    overload.goodput_by_window = [windows[window] / _WINDOW_SECONDS for window in whole]
    if latencies:
        overload.p50_s, overload.p99_s = latencies[len(latencies) // 2], latencies[int(0.99 * (len(latencies) - 1))]
    overload.statuses = dict(Counter(status for status, *_ in outcomes))


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True))
@click.option("--factor", type=click.FloatRange(min=1), default=3.0, show_default=True, help="Times the saturation.")
@click.option("--seconds", type=click.FloatRange(min=_WINDOW_SECONDS), default=60.0, show_default=True)
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True)
def main(repository: Path, factor: float, seconds: float, deadline: float) -> None:
    """Serve REPOSITORY's pinned release and overload it."""
    with TritonServer(repository) as server:
        overload = asyncio.run(measure(server, factor, seconds, deadline))
    click.echo(machine.describe())
    click.echo(overload.table)
    click.echo(json.dumps(asdict(overload)))


if __name__ == "__main__":
    main()
