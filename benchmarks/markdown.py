"""The result document as Markdown tables, to be read beside the code and copied into `docs/benchmarks.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import ceilings


def render(document: Mapping[str, Any]) -> str:
    """The whole document of `benchmarks.bench`."""
    workload = document["workload"]
    parts = [
        "# Benchmark",
        f"{document['machine']}. {workload['checkpoint']}, {workload['categories']} categories, "
        f"{workload['prefix_tokens']} constant tokens before and {workload['suffix_tokens']} after a conversation.",
        _mixes(workload["mixes"]),
        "## Ceilings",
        _ceilings(document["ceilings_gops"]),
        *(part for mix in workload["mixes"] for part in _runs(mix["mix"], document["runs"])),
        "## What follows",
        *_conclusions(document),
        "## Growth",
        _growth(document["growth"]),
    ]
    return "\n\n".join(parts) + "\n"


def _mixes(mixes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (one["mix"], one["conversations"], f"{one['unsafe_share']:.0%}", *_lengths(one["conversation_tokens"]))
        for one in mixes
    ]
    return _table(("mix", "conversations", "unsafe", "least tokens", "median", "mean", "most"), rows)


def _lengths(tokens: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{tokens[name]:.0f}" for name in ("least", "median", "mean", "most"))


def _ceilings(measured: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(next(iter(measured.values())))
    names = [name if name == "ceiling" else f"{name} rows" for name in columns]
    rows = [(ceilings.KINDS[kind], *(f"{rates[name]:.0f}" for name in columns)) for kind, rates in measured.items()]
    return _table(("GOP/s", *names), rows)


def _runs(mix: str, runs: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    columns = (
        "system",
        "load",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "tokens",
        "paths",
        "ceiling",
        "MB",
    )
    forms = {
        "requests_per_s": ".2f", "p50_ms": ".0f", "p95_ms": ".0f", "p99_ms": ".0f", "computed_tokens": ".0f",
        "expanded_paths": ".2f", "ceiling_fraction": ".0%", "resident_mb": ".0f",
    }  # fmt: skip
    rows = [
        (run["system"], run["load"], *("" if run[name] is None else format(run[name], forms[name]) for name in forms))
        for run in runs
        if run["mix"] == mix
    ]
    return f"## {mix.capitalize()} conversations", _table(columns, rows)


def _conclusions(document: Mapping[str, Any]) -> Iterable[str]:
    yield _table(("ratio", "value"), [(name, f"{value:.2f}") for name, value in document["ratios"].items()])
    steady = document["steady"]
    if steady is not None:
        yield (
            f"At 70 % of saturation ({document['saturation_requests_per_s']:.2f} requests/s), Poisson arrivals: "
            f"p50 {steady['p50_ms']:.0f} ms, p99 {steady['p99_ms']:.0f} ms, {steady['p99 / p50']:.1f} times as much."
        )
    versions = [f"{name}: {version}" for name, version in document["versions"].items()]
    missing = [f"{name}: not measured ({reason})" for name, reason in document["absent"].items()]
    yield "\n".join(f"- {line}" for line in (*versions, *missing))


def _growth(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        (row["varied"], row["value"], f"{row['ms_per_request']:.1f}", f"{row['computed_tokens']:.0f}") for row in rows
    ]
    return _table(("varied", "value", "ms a request", "tokens a request"), lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
