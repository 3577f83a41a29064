"""From runs to the figures that are reported: medians, computed tokens, fractions of the ceiling, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.cost import Cost, ModelShape
from benchmarks.run import Run, median
from benchmarks.schedule import Measured, at_a_time, stack_name
from benchmarks.systems import bare_name

_COST_FIELDS = tuple(vars(Cost()))


@dataclass(frozen=True)
class Figure:
    """One line of the results.

    computed_tokens, expanded_paths  of a request, on average; None where the system does not tell
    ceiling_fraction                 achieved operations per second over the machine's ceiling in the same arithmetic;
                                     None for systems that compute in another one
    """

    system: str
    mix: str
    load: str
    run: Run
    computed_tokens: float | None
    expanded_paths: float | None
    ceiling_fraction: float | None

    def document(self) -> dict[str, Any]:
        """The figure as flat JSON."""
        flat = asdict(self)
        run = flat.pop("run")
        del run["counts"]
        return {**flat, **run}


def costs(measured: Measured, precisions: Iterable[str]) -> dict[tuple[str, str], Cost]:
    """The summed cost of all runs of the bare sessions, which count what they compute, by (precision, mix)."""
    sums: dict[tuple[str, str], Cost] = {}
    for precision in precisions:
        for key, runs in measured.runs.items():
            if key.system == bare_name(precision):
                place = (precision, key.mix)
                for run in runs:
                    counted = Cost(*(int(run.counts[field]) for field in _COST_FIELDS))
                    sums[place] = sums.get(place, Cost()) + counted
    return sums


def figures(measured: Measured, shape: ModelShape, ceilings: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """All figures; `ceilings` are giga-operations per second by precision."""
    by_cost = costs(measured, ceilings)
    precision_of = {name(precision): precision for precision in ceilings for name in (stack_name, bare_name)}
    found = []
    for key, runs in measured.runs.items():
        run = median(runs)
        precision = precision_of.get(key.system)
        if precision is None:
            computed, paths, fraction = run.counts["computed_tokens"] / run.requests, None, None
        else:
            total = by_cost[precision, key.mix]
            computed, paths = total.computed_tokens / total.requests, total.expanded_paths / total.requests
            operations = total.operations(shape) / total.requests
            fraction = run.requests_per_s * operations / (1e9 * ceilings[precision]["ceiling"])
        found.append(Figure(*key, run, computed, paths, fraction))
    return found


def ratios(measured: Measured, precision: str, cores: int) -> dict[str, float]:
    """How many times as many requests/s our stack serves as each other system, by mix; and its overhead.

    Each system at its best load; a ratio is the median over rounds of the ratio within a round. Overhead = 1 -
    requests/s through Triton at saturation / requests/s of the bare session with a conversation on each core.
    """
    ours, best = stack_name(precision), best_rates(measured)
    result = {
        f"{ours} / {system}, {mix}": _paired(best[ours, mix], rates)
        for (system, mix), rates in best.items()
        if system != ours
    }
    for key, runs in measured.runs.items():
        if key.system == bare_name(precision) and key.load == at_a_time(cores):
            result[f"stack overhead, {key.mix}"] = 1 - _paired(best[ours, key.mix], _rates(runs))
    return result


def best_rates(measured: Measured) -> dict[tuple[str, str], list[float]]:
    """Requests/s round by round of each system at its best load, by (system, mix)."""
    best: dict[tuple[str, str], list[float]] = {}
    for key, runs in measured.runs.items():
        place = (key.system, key.mix)
        best[place] = max(best.get(place, [0.0]), _rates(runs), key=statistics.median)
    return best


def _rates(runs: Sequence[Run]) -> list[float]:
    return [run.requests_per_s for run in runs]


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios round by round; a system that dropped out has fewer rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=False))


def steady(figures: list[Figure], load: str) -> dict[str, float]:
    """p50, p99 and their ratio under this load."""
    (run,) = (figure.run for figure in figures if figure.load == load)
    return {"p50_ms": run.p50_ms, "p99_ms": run.p99_ms, "p99 / p50": run.p99_ms / run.p50_ms}
