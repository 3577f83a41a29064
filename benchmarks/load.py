"""Load the served guard with perf_analyzer: requests/s and latency at several concurrencies.

Metrics, as perf_analyzer defines them: requests/s = completed requests in a measurement window / its length; latency =
from sending a request to having its answer, in the load generator. Ready = from starting this program's server to its
first successful readiness check. Resident = the sum over the server's processes. The last line is one JSON document.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from verdictree.conversation import parse
from verdictree.repository import pinned
from verdictree_client import GuardClient
from verdictree_serving import TritonServer
from verdictree_serving.offline import OfflineGuard

CONVERSATIONS = Path(__file__).with_name("conversations.jsonl")
WINDOWS = 3  # perf_analyzer's measurement windows, of which it reports the average


@click.command()
@click.option("--repository", type=click.Path(path_type=Path, exists=True), default=Path("model_repository"))
@click.option("--perf-analyzer", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--concurrency", type=int, multiple=True, default=(1, 8), show_default=True)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Length of a measurement window.")
def main(repository: Path, perf_analyzer: Path, concurrency: tuple[int, ...], seconds: float) -> None:
    """Serve REPOSITORY's pinned release and load it."""
    console = Console()
    bodies = CONVERSATIONS.read_bytes().splitlines()
    workload = _workload(repository, bodies)
    console.print(f"{_machine()}; {json.dumps(workload)}")
    start = time.perf_counter()
    with TritonServer(repository) as server, tempfile.TemporaryDirectory() as scratch:
        ready = time.perf_counter() - start
        inputs = Path(scratch) / "inputs.json"
        inputs.write_text(json.dumps({"data": [{"request": [body.decode()]} for body in bodies]}))
        with GuardClient(server.grpc_address, deadline=60.0) as client:  # warm-up, apart from what is measured
            list(client.classify_many([parse(body) for body in bodies], concurrency=max(concurrency)))
        runs = [_measure(perf_analyzer, server, inputs, Path(scratch), level, seconds) for level in concurrency]
        resident = _resident_megabytes(server.pid)
    console.print(_table(runs))
    console.print(f"ready after {ready:.1f} s, resident {resident:.0f} MB")
    result = {"machine": _machine(), "workload": workload, "ready_s": ready, "resident_mb": resident, "runs": runs}
    click.echo(json.dumps(result))


def _workload(repository: Path, bodies: list[bytes]) -> dict[str, Any]:
    guard = OfflineGuard(repository, pinned(repository))
    lengths = sorted(len(guard.tokenize(parse(body)).input_ids) for body in bodies)
    prompt = guard.release.prompts[0]
    return {
        "checkpoint": guard.release.checkpoint,
        "precision": guard.release.precision,
        "prefix_tokens": len(prompt.prefix_ids),
        "suffix_tokens": len(prompt.suffix_ids),
        "median_conversation_tokens": lengths[len(lengths) // 2],
        "conversations": len(bodies),
    }


def _measure(
    perf_analyzer: Path, server: TritonServer, inputs: Path, scratch: Path, concurrency: int, seconds: float
) -> dict[str, float]:
    report = scratch / f"{concurrency}.csv"
    command = [
        *(str(perf_analyzer.resolve()), "-m", "guard", "-i", "grpc", "-u", server.grpc_address),
        *("--input-data", str(inputs), "--concurrency-range", str(concurrency), "-f", str(report)),
        *("--measurement-interval", str(int(1000 * seconds)), "--max-trials", str(WINDOWS)),
        # The machine decides how noisy it is; an unstable run is reported, not repeated without end.
        *("--stability-percentage", "999"),
    ]
    libraries = perf_analyzer.resolve().parents[1] / "lib"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0 or not report.exists():
        raise click.ClickException(f"perf_analyzer failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    with report.open() as lines:
        (row,) = csv.DictReader(lines)
    return {
        "concurrency": concurrency,
        "requests_per_s": float(row["Inferences/Second"]),
        **{f"p{p}_ms": float(row[f"p{p} latency"]) / 1000 for p in (50, 95, 99)},
    }


def _resident_megabytes(group: int) -> float:
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(status.parent.name)) == group:
                total += int(status.read_text().split("VmRSS:")[1].split()[0])
        except (OSError, IndexError):
            continue  # a process that ended meanwhile, or a kernel thread
    return total / 1024


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line for line in lines if line.startswith("flags")), "")
    vector = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{os.cpu_count()} cores {model} ({vector})"


def _table(runs: list[dict[str, float]]) -> Table:
    table = Table("concurrency", "requests/s", "p50 ms", "p95 ms", "p99 ms")
    for run in runs:
        values = (run["p50_ms"], run["p95_ms"], run["p99_ms"])
        table.add_row(str(run["concurrency"]), f"{run['requests_per_s']:.1f}", *(f"{value:.0f}" for value in values))
    return table


if __name__ == "__main__":
    main()
