"""The tables that a benchmark prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from benchmarks import ceilings
from benchmarks.growth import Row
from benchmarks.results import Figure


def ceilings_table(measured: Mapping[str, Mapping[str, float]]) -> Table:
    """Giga-operations per second by arithmetic and number of rows."""
    rows = [name for name in next(iter(measured.values())) if name != "ceiling"]
    table = Table("GOP/s of linear layers", *(f"{count} rows" for count in rows), "ceiling")
    for kind, rates in measured.items():
        table.add_row(ceilings.KINDS[kind], *(f"{rates[count]:.0f}" for count in rows), f"{rates['ceiling']:.0f}")
    return table


def figures_table(mix: str, figures: Sequence[Figure]) -> Table:
    """All figures of one mix."""
    table = Table(title=f"{mix} conversations", title_justify="left")
    for column in ("system", "load", "requests/s", "p50 ms", "p95 ms", "p99 ms", "tokens", "paths", "ceiling", "MB"):
        table.add_column(column, justify="left" if column in ("system", "load") else "right")
    for figure in figures:
        if figure.mix == mix:
            table.add_row(figure.system, figure.load, *_cells(figure))
    return table


def growth_table(rows: Sequence[Row]) -> Table:
    """How a request's time grows."""
    table = Table("varied", "value", "ms a request", "tokens a request", "ms a token")
    for row in rows:
        time, tokens = row.ms_per_request, row.computed_tokens
        table.add_row(row.varied, str(row.value), f"{time:.1f}", f"{tokens:.0f}", f"{time / tokens:.2f}")
    return table


def _cells(figure: Figure) -> list[str]:
    run = figure.run
    return [
        f"{run.requests_per_s:.2f}",
        *(f"{latency:.0f}" for latency in (run.p50_ms, run.p95_ms, run.p99_ms)),
        _or_nothing(figure.computed_tokens, ".0f"),
        _or_nothing(figure.expanded_paths, ".2f"),
        _or_nothing(figure.ceiling_fraction, ".0%"),
        f"{run.resident_mb:.0f}",
    ]


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
