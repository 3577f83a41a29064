"""What our client's two ways cost: typed through the gateway, and KServe v2 straight to Triton, in turn in one run.

Each round asks by both, in an order that changes; a figure is the median of the rounds. A lone caller's latency, the
rate of `classify_many`, and the client's own CPU time a call. The last line of the output is one JSON object.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

import click

from benchmarks import machine
from benchmarks.overload import TEXTS
from verdictree_client import GuardClient
from verdictree_gateway.settings import Settings
from verdictree_gateway.workers import GatewayProcesses
from verdictree_serving import TritonServer

_DEADLINE = 60.0


def measure(client: GuardClient, calls: int, concurrency: int) -> dict[str, float]:
    """Milliseconds at the median of a lone caller, calls a second side by side, the client's CPU time a call."""
    texts = [TEXTS[number % len(TEXTS)] for number in range(calls)]
    taken, cpu = [], time.process_time()
    for text in texts:
        start = time.perf_counter()
        client.classify(text)
        taken.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    start = time.perf_counter()
    assert len(list(client.classify_many(texts, concurrency=concurrency))) == calls
    rate = calls / (time.perf_counter() - start)
    return {"ms": 1000 * statistics.median(taken), "calls_per_second": rate, "client_cpu_ms": 1000 * cpu / calls}


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True))
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--calls", type=click.IntRange(min=1), default=40, show_default=True, help="Of one measurement.")
@click.option("--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="For the rates.")
def main(repository: Path, rounds: int, calls: int, concurrency: int) -> None:
    """Serve REPOSITORY's pinned release, with a gateway before it, and ask both by our client."""
    settings = Settings(triton=(), grpc_port=0, http_port=0, repository=str(repository))
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with TritonServer(repository) as server, GatewayProcesses(settings) as gateway:
        gateway.start([server.grpc_address])
        addresses = {"gateway": gateway.grpc_address, "triton": server.grpc_address}
        clients = {name: GuardClient(address, deadline=_DEADLINE) for name, address in addresses.items()}
        for client in clients.values():
            measure(client, 4, concurrency)
        for number in range(rounds):
            for name in sorted(clients, reverse=bool(number % 2)):
                found[name].append(measure(clients[name], calls, concurrency))
        for client in clients.values():
            client.close()
    said = {name: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for name, runs in found.items()}
    pairs = list(zip(found["gateway"], found["triton"], strict=True))
    ratios = {key: statistics.median(ours[key] / theirs[key] for ours, theirs in pairs) for key in said["gateway"]}
    click.echo(machine.describe())
    click.echo(json.dumps({"calls": calls, "concurrency": concurrency, **said, "ratios": ratios}))


if __name__ == "__main__":
    main()
