"""One comparison: figures for each thing that is judged, flips to read, and the gates' outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from verdictree.pair import Pair
from verdictree_comparison import figures
from verdictree_comparison.arrays import Arrays, Bools, Scored, gather
from verdictree_comparison.figures import Figure
from verdictree_comparison.flips import Flip, examples
from verdictree_comparison.gates import Gates, Outcome, judge

DECISION = "decision"


class Flags(msgspec.Struct, frozen=True):
    """How often each release raised a flag, and how often they differ; shares with their intervals."""

    num_live: int
    num_candidate: int
    num_to_safe: int
    num_to_unsafe: int
    agreement: Figure
    to_safe: Figure
    to_unsafe: Figure


class Row(msgspec.Struct, frozen=True):
    """One code's flags, and how its score moved."""

    code: str
    flags: Flags
    psi: Figure
    ks: Figure
    mean_abs_difference: Figure


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison found.

    `decision` is whether anything is flagged, `rows` are P(unsafe) and then the categories of both releases;
    `num_dropped` counts conversations that the shadow could not keep up with.
    """

    live: int
    candidate: int
    source: str
    created: str
    num_conversations: int
    num_dropped: int
    is_calibrated: bool
    only_live: tuple[str, ...]
    only_candidate: tuple[str, ...]
    decision: Flags
    rows: tuple[Row, ...]
    failures: Figure
    latency_ratio: Figure
    to_safe: tuple[Flip, ...]
    to_unsafe: tuple[Flip, ...]
    gates: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate let the candidate pass."""
        return all(gate.passed for gate in self.gates)

    @property
    def failed(self) -> tuple[str, ...]:
        """Why the candidate may not be promoted, one reason a gate."""
        return tuple(gate.reason for gate in self.gates if not gate.passed)

    def summary(self) -> dict[str, Any]:
        """What a journal needs to remember."""
        return {"conversations": self.num_conversations, "source": self.source, "failed": list(self.failed)}

    def to_json(self) -> bytes:
        """The whole comparison as UTF-8 JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def compare_pairs(pairs: Sequence[Pair], *, live: int, candidate: int, source: str, gates: Gates) -> Compared:
    """Compare the verdicts of two releases on the same conversations; BadPairs where they cannot be compared."""
    arrays = gather(pairs)
    before, after = arrays.live_decisions, arrays.candidate_decisions
    milliseconds = [np.array([getattr(pair, name) for pair in arrays.pairs]) for name in ("live_ms", "candidate_ms")]
    failures = figures.share(np.array([pair.candidate is None for pair in pairs]))
    decision, rows = _flags(before, after), tuple(_row(scored) for scored in arrays.scored)
    latency_ratio = figures.latency_ratio(*milliseconds)
    return Compared(
        live=live,
        candidate=candidate,
        source=source,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        num_conversations=len(arrays.pairs),
        num_dropped=max(pair.num_dropped for pair in pairs),
        is_calibrated=arrays.is_calibrated,
        only_live=arrays.only_live,
        only_candidate=arrays.only_candidate,
        decision=decision,
        rows=rows,
        failures=failures,
        latency_ratio=latency_ratio,
        to_safe=examples(arrays, before & ~after),
        to_unsafe=examples(arrays, ~before & after),
        gates=judge(gates, _held_against(arrays, decision, rows, failures, latency_ratio)),
    )


def _flags(live: Bools, candidate: Bools) -> Flags:
    to_safe, to_unsafe = live & ~candidate, ~live & candidate
    return Flags(
        num_live=int(live.sum()),
        num_candidate=int(candidate.sum()),
        num_to_safe=int(to_safe.sum()),
        num_to_unsafe=int(to_unsafe.sum()),
        agreement=figures.share(live == candidate),
        to_safe=figures.share(to_safe),
        to_unsafe=figures.share(to_unsafe),
    )


def _row(scored: Scored) -> Row:
    return Row(
        scored.code,
        _flags(scored.live_flags, scored.candidate_flags),
        figures.psi(scored.live, scored.candidate),
        figures.ks(scored.live, scored.candidate),
        figures.mean_abs_difference(scored.live, scored.candidate),
    )


def _held_against(
    arrays: Arrays, decision: Flags, rows: Sequence[Row], failures: Figure, latency_ratio: Figure
) -> dict[str, list[tuple[str, float]]]:
    return {
        "min_conversations": [("", float(len(arrays.pairs)))],
        "max_failures": [("", failures.high)],
        "max_flips_to_safe": [(DECISION, decision.to_safe.high)],
        "max_flips_to_unsafe": [(DECISION, decision.to_unsafe.high)],
        "min_agreement": [(row.code, row.flags.agreement.low) for row in rows],
        "max_psi": [(row.code, row.psi.high) for row in rows],
        "max_ks": [(row.code, row.ks.high) for row in rows],
        "max_mean_abs_difference": [(row.code, row.mean_abs_difference.high) for row in rows],
        "max_latency_ratio": [("", latency_ratio.high)],
    }
