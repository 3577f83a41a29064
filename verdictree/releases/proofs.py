"""What an export has measured of a release, and what a server must find again."""

from __future__ import annotations

import msgspec

from verdictree.conversation import Message


class Parity(msgspec.Struct, frozen=True):
    """How far the graph is from the checkpoint: the largest |Δ log p| over the compared nodes of the verdict tree."""

    max_abs_log_prob_difference: float
    tolerance: float
    num_conversations: int
    num_nodes: int


class QuantizationQuality(msgspec.Struct, frozen=True):
    """What the quality gate measured: how far a quantized guard's verdicts are from the floating-point one's, on
    conversations that it was not fitted to.

    The differences are absolute, of P(unsafe). The micro-AUC pools all categories' marginals; None without labels.
    """

    num_conversations: int
    p99_p_unsafe_difference: float
    max_p_unsafe_difference: float
    mean_p_unsafe_difference: float
    micro_auc: float | None
    reference_micro_auc: float | None


class Golden(msgspec.Struct, frozen=True):
    """A conversation with the raw scores that the release gave it at export: proof that a server loaded the release.

    `marginal` is in the policy's order. Scores of another machine differ in the last digits: their log-odds, as
    `calibration.log_odds` takes them so that small probabilities count, by at most `tolerance`.
    """

    messages: tuple[Message, ...]
    p_unsafe: float
    p_safe: float
    marginal: tuple[float, ...]
    tolerance: float
