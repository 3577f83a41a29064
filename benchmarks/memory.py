"""Whether the server's memory stays flat: many requests of all lengths, resident memory along the way.

The last line is one JSON document; `growth_mb_per_1000` is the slope of a line through the second half's samples, since
a server first fills its arenas.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import machine, workload
from verdictree.conversation import Conversation, parse
from verdictree.releases.repository import pinned
from verdictree.runtime.local_guard import LocalGuard
from verdictree_client import GuardClient
from verdictree_serving import TritonServer

_SAMPLES = 20


@click.command()
@click.argument("repository", type=click.Path(path_type=Path, exists=True))
@click.option("--requests", type=click.IntRange(min=_SAMPLES), default=10_000, show_default=True)
@click.option("--concurrency", type=click.IntRange(min=1), default=8, show_default=True)
def main(repository: Path, requests: int, concurrency: int) -> None:
    """Serve REPOSITORY's pinned release and watch its memory."""
    guard = LocalGuard.load(repository, pinned(repository))
    conversations = _endless([workload.load(mix, guard) for mix in workload.MIXES])
    del guard
    samples: list[tuple[int, float]] = []
    with TritonServer(repository) as server, GuardClient(server.grpc_address, deadline=120.0) as client:
        for number in range(1, _SAMPLES + 1):
            share = itertools.islice(conversations, requests // _SAMPLES)
            for _ in client.classify_many(list(share), concurrency=concurrency):
                pass
            samples.append((number * (requests // _SAMPLES), machine.resident_megabytes(server.pid)))
            click.echo(f"{samples[-1][0]:>7} requests {samples[-1][1]:>8.0f} MB", err=True)
    click.echo(json.dumps(_document(samples)))


def _endless(mixes: list[workload.Workload]) -> Iterator[Conversation]:
    bodies = [body for mix in mixes for body in mix.bodies]
    return (parse(body.encode()) for body in itertools.cycle(bodies))


def _document(samples: list[tuple[int, float]]) -> dict[str, Any]:
    counts, megabytes = np.array(samples[len(samples) // 2 :]).T
    return {
        "machine": machine.describe(),
        "samples": [{"requests": count, "resident_mb": resident} for count, resident in samples],
        "growth_mb_per_1000": 1000 * float(np.polyfit(counts, megabytes, 1)[0]),
    }


if __name__ == "__main__":
    main()
