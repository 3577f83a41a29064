"""What one measurement says, and how several of the same become one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Run:
    """Requests/s, latency percentiles in milliseconds, resident megabytes after it, and sums of what was counted."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    resident_mb: float
    counts: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of_latencies(
        latencies_ms: Sequence[float], seconds: float, resident_mb: float, counts: dict[str, float]
    ) -> Run:
        """The run of requests that took `latencies_ms` each and `seconds` altogether."""
        p50, p95, p99 = np.percentile(latencies_ms, (50, 95, 99)).tolist()
        return Run(len(latencies_ms), len(latencies_ms) / seconds, p50, p95, p99, resident_mb, counts)

    def per_request(self, name: str) -> float:
        """What was counted under this name, for one request."""
        return self.counts[name] / self.requests


def median(runs: Sequence[Run]) -> Run:
    """The median of each figure; counts and requests are summed up."""
    return Run(
        requests=sum(run.requests for run in runs),
        requests_per_s=statistics.median(run.requests_per_s for run in runs),
        p50_ms=statistics.median(run.p50_ms for run in runs),
        p95_ms=statistics.median(run.p95_ms for run in runs),
        p99_ms=statistics.median(run.p99_ms for run in runs),
        resident_mb=max(run.resident_mb for run in runs),
        counts={name: sum(run.counts[name] for run in runs) for name in runs[0].counts},
    )
