"""The quality gate of quantization: does a quantized guard still judge as the floating-point one does?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from verdictree.errors import UnsupportedGuard
from verdictree.releases.proofs import QuantizationQuality
from verdictree.verdict import Verdict
from verdictree_export.finite import require_finite_verdicts

MAX_AUC_DROP = 0.003
_NAMED = 3


def measure(
    reference: Sequence[Verdict], verdicts: Sequence[Verdict], labels: Sequence[Sequence[str]] | None = None
) -> QuantizationQuality:
    """Compare verdicts with those of the floating-point guard on the same conversations, in the same order.

    `labels` are each conversation's true categories, by code; without them there are no AUCs. Raises UnsupportedGuard
    where a number is not finite, ValueError where there is nothing to compare or the lengths differ.
    """
    if not reference or len(reference) != len(verdicts) or (labels is not None and len(labels) != len(reference)):
        raise ValueError(f"expected as many verdicts as references, at least one, got {len(verdicts)}/{len(reference)}")
    require_finite_verdicts(reference, "the floating-point guard")
    require_finite_verdicts(verdicts, "the converted guard")
    change = np.abs([b.p_unsafe - a.p_unsafe for a, b in zip(reference, verdicts, strict=True)])
    return QuantizationQuality(
        num_conversations=len(reference),
        p99_p_unsafe_difference=float(np.quantile(change, 0.99)),
        max_p_unsafe_difference=float(change.max()),
        mean_p_unsafe_difference=float(change.mean()),
        micro_auc=_micro_auc(verdicts, labels),
        reference_micro_auc=_micro_auc(reference, labels),
    )


def passes(quality: QuantizationQuality, max_p99: float) -> bool:
    """Whether P(unsafe) and the ranking of categories stay within the limits."""
    drop = (quality.reference_micro_auc or 0.0) - (quality.micro_auc or 0.0)
    return quality.p99_p_unsafe_difference <= max_p99 and drop <= MAX_AUC_DROP


def refuse(quality: QuantizationQuality, alone: Mapping[str, QuantizationQuality], max_p99: float) -> UnsupportedGuard:
    """The error to raise for a quantized guard that does not pass: `alone` has each layer group's own."""
    worst = sorted(alone, key=lambda name: -alone[name].p99_p_unsafe_difference)[:_NAMED]
    named = ", ".join(f"{name} ({alone[name].p99_p_unsafe_difference:.2g})" for name in worst)
    fix = f"the layers that change it most when quantized by themselves: {named}; " if named else ""
    auc = ""
    if quality.micro_auc is not None and quality.reference_micro_auc is not None:
        auc = f" and the micro-AUC at most {MAX_AUC_DROP} below {quality.reference_micro_auc:.4f}"
    got = "" if quality.micro_auc is None else f" and {quality.micro_auc:.4f}"
    return UnsupportedGuard(
        f"expected the 99th percentile of the change of P(unsafe) within {max_p99}{auc}, got "
        f"{quality.p99_p_unsafe_difference:.2g}{got} on {quality.num_conversations} conversations; {fix}"
        "export in fp32, or give a --max-change that you can bear"
    )


def check(
    quality: QuantizationQuality, groups: Mapping[str, Callable[[], QuantizationQuality]], max_p99: float
) -> None:
    """Raise UnsupportedGuard, naming the layers that hurt most, unless `quality` is within the limits.

    `groups` are called only then: each measures the guard with one group of layers quantized and the others not.
    """
    if not passes(quality, max_p99):
        raise refuse(quality, {name: measured() for name, measured in groups.items()}, max_p99)


def _micro_auc(verdicts: Sequence[Verdict], labels: Sequence[Sequence[str]] | None) -> float | None:
    if labels is None:
        return None
    pairs = [
        (score.marginal, score.code in true)
        for verdict, true in zip(verdicts, labels, strict=True)
        for score in verdict.categories
    ]
    return _auc(np.array([p for p, _ in pairs]), np.array([truth for _, truth in pairs], dtype=bool))


def _auc(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float | None:
    """Mann and Whitney's U over the number of pairs, ties counting half; None where all are alike."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
