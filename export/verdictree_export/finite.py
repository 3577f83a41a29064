"""Numbers that prove something must be numbers: NaN passes every comparison that is written the wrong way round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from verdictree.errors import UnsupportedGuard
from verdictree.verdict import Verdict


def require_finite(numbers: npt.ArrayLike, of: str) -> None:
    """Raise UnsupportedGuard, naming whose they are, where any of `numbers` is NaN or infinite."""
    values = np.asarray(numbers, dtype=np.float64).ravel()
    wrong = values[~np.isfinite(values)]
    if wrong.size:
        raise UnsupportedGuard(
            f"expected finite numbers from {of}, got {wrong[0]} among {wrong.size} of {values.size}; the checkpoint is "
            "damaged, or its numbers are too large for the precision: export it in fp32 or bf16"
        )


def require_finite_verdicts(verdicts: Sequence[Verdict], of: str) -> None:
    """Raise UnsupportedGuard where any number of a verdict is NaN or infinite."""
    require_finite([number for verdict in verdicts for number in _numbers(verdict)], of)


def _numbers(verdict: Verdict) -> Iterator[float]:
    yield from (verdict.p_unsafe, verdict.p_safe, verdict.unexplored, verdict.off_grammar)
    for score in verdict.categories:
        yield from (score.marginal, score.joint, score.conditional)
