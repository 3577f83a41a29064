"""How many requests a second, at what latency, near what ceiling, and next to whom: everything in one run.

Metrics. requests/s and latency percentiles: perf_analyzer's for Triton (sent to answered, in the load generator); for
other systems answered requests over time, and from a request's begin to its end. tokens: computed for one request
(`cost`). paths: label paths expanded for one request. ceiling: operations in linear layers per second, as a fraction of
the fastest matrix products in the same arithmetic. MB: resident memory after the run, load generator left out. Figures
are medians over rounds; each round measures everything once. Ratios are medians of the ratios within a round. The last
line is one JSON document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import ceilings, growth, machine, markdown, plot, report, workload
from benchmarks.comparison import Options, compare
from benchmarks.cost import model_shape
from benchmarks.results import Figure, figures
from benchmarks.schedule import Plan
from benchmarks.workload import Workload
from verdictree.releases.release import GRAPH_MODEL, WEIGHTLESS_FOLDER
from verdictree.releases.repository import bound_queues, pinned
from verdictree.runtime.local_guard import LocalGuard

_FULL = Plan(rounds=3, seconds=6.0, concurrencies=(1, 4, 16, 32))
_PATIENCE_SECONDS = 600.0
_QUICK = Plan(rounds=1, seconds=3.0, concurrencies=(1, 8))


@click.command()
@click.argument("repositories", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--checkpoint", default=".bench/checkpoint", show_default=True, help="The same guard, for the others.")
@click.option("--perf-analyzer", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rivals", type=click.Path(path_type=Path), default=Path(".bench"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=_FULL.rounds, show_default=True)
@click.option("--seconds", type=float, default=_FULL.seconds, show_default=True, help="Length of one measurement.")
@click.option("--quick", is_flag=True, help="Our stack and the bare session only, in less than a minute.")
def main(repositories: tuple[Path, ...], rounds: int, seconds: float, quick: bool, **options: Any) -> None:
    """Measure the pinned releases of REPOSITORIES, one for each precision, the main one first."""
    if not quick:
        for repository in repositories:  # the heaviest load waits longer than a service would let it
            bound_queues(repository, _PATIENCE_SECONDS)
    guards = {guard.release.precision: (path, guard) for path, guard in map(_open, repositories)}
    plan = _QUICK if quick else Plan(rounds, seconds, _FULL.concurrencies)
    paths = {precision: path for precision, (path, _) in guards.items()}
    main_guard = next(guard for _, guard in guards.values())
    document = _bench(Options(paths, plan=plan, quick=quick, **options), main_guard, Console(width=150))
    click.echo(json.dumps(document))


def _open(repository: Path) -> tuple[Path, LocalGuard]:
    return repository, LocalGuard.load(repository, pinned(repository), threads=1)


def _bench(options: Options, guard: LocalGuard, console: Console) -> dict[str, Any]:
    mixes = workload.MIXES[:1] if options.quick else workload.MIXES
    workloads = {mix: workload.load(mix, guard) for mix in mixes}
    from verdictree_export.prompts.checkpoint import load_weightless

    processor = machine.describe()
    statement = {"machine": processor, "workload": _statement(guard, workloads)}
    console.print(statement)
    folder = guard.release.folder(next(iter(options.repositories.values())), GRAPH_MODEL) / WEIGHTLESS_FOLDER
    shape = model_shape(load_weightless(str(folder)).model.config)
    counts = ceilings.QUICK_ROWS if options.quick else ceilings.ROWS
    first_ceilings = ceilings.measure(shape, counts)
    rows = [] if options.quick else _growth(options, guard, workloads["production"], console)
    measured_ceilings = ceilings.best(first_ceilings, ceilings.measure(shape, counts))
    console.print(report.ceilings_table(measured_ceilings))
    found, more = compare(
        options, guard, workloads, lambda runs: figures(runs, shape, measured_ceilings), console.print
    )
    for mix in workloads:
        console.print(report.figures_table(mix, found))
    console.print(more)
    document = {
        **statement,
        "ceilings_gops": measured_ceilings,
        "runs": [figure.document() for figure in found],
        **more,
        "growth": [asdict(row) for row in rows],
    }
    if not options.quick:
        _keep(options.output, document, found, processor)
    return document


def _statement(guard: LocalGuard, workloads: Mapping[str, Workload]) -> dict[str, Any]:
    release, prompt = guard.release, guard.release.prompts[0]
    return {
        "checkpoint": release.checkpoint,
        "categories": len(release.policy.categories),
        "prefix_tokens": len(prompt.prefix_ids),
        "suffix_tokens": len(prompt.suffix_ids),
        "mixes": [workload.statement() for workload in workloads.values()],
    }


def _keep(folder: Path, document: dict[str, Any], figures: list[Figure], title: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "bench.md").write_text(markdown.render(document))
    plot.latency_against_throughput(figures, "production", title, folder / "latency-throughput.png")


def _growth(options: Options, guard: LocalGuard, production: Workload, console: Console) -> list[growth.Row]:
    rows = list(growth.of_release(guard, production.tokenized[0]))
    rows += growth.of_exports(options.checkpoint)
    console.print(report.growth_table(rows))
    return rows


if __name__ == "__main__":
    main()
