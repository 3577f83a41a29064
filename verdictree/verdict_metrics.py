"""What is counted of verdicts: names, labels and buckets, the same in a gateway's metrics and in Triton's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from verdictree.policy import UNSAFE
from verdictree.verdict import Verdict

# Upper bounds of the buckets of a probability, and of a conversation's tokens.
SCORE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 1.0)
TOKEN_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
OF_VERDICT = ("release", "policy", "role")


class Metric(NamedTuple):
    """A counter, or with `buckets` (upper bounds) a histogram. `name` is without what stands before and after it."""

    name: str
    text: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


ACTIONS = Metric(
    "actions",
    "Verdicts, by what is to be done; of a category only reviews and blocks.",
    (*OF_VERDICT, "category", "action"),
)
MARGINAL = Metric("marginal", "P(category), raw.", (*OF_VERDICT, "category"), SCORE_BUCKETS)
SCORE = Metric("score", "P(category), calibrated.", (*OF_VERDICT, "category"), SCORE_BUCKETS)
UNEXPLORED = Metric("unexplored", "Answers not followed.", OF_VERDICT, SCORE_BUCKETS)
OFF_GRAMMAR = Metric("off_grammar", "Answers off the grammar.", OF_VERDICT, SCORE_BUCKETS)
UNDECIDED = Metric("undecided", "Verdicts that are none.", OF_VERDICT)
TRUNCATED = Metric("truncated", "Conversations that were cut.", OF_VERDICT)
EXITED = Metric("exited", "Verdicts on conversations that left early.", OF_VERDICT)
TOKENS = Metric("tokens", "Tokens of a conversation.", OF_VERDICT, TOKEN_BUCKETS)
METRICS = (ACTIONS, MARGINAL, SCORE, UNEXPLORED, OFF_GRAMMAR, UNDECIDED, TRUNCATED, EXITED, TOKENS)


def observations(verdict: Verdict) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    """What a verdict adds: to which metric, with which labels' values, how much.

    Labels are the release's own words, never a caller's.
    """
    key = (str(verdict.release), verdict.policy, verdict.role)
    yield TOKENS, key, verdict.num_tokens
    # Also with 0, so that a counter is there before its first event, which a rate would not see otherwise.
    yield UNDECIDED, key, verdict.undecided
    yield TRUNCATED, key, verdict.num_truncated_tokens > 0
    yield ACTIONS, (*key, "any", verdict.action or "none"), 1
    yield EXITED, key, verdict.exit_layer is not None
    if verdict.exit_layer is not None:  # limits, not scores
        return
    yield UNEXPLORED, key, verdict.unexplored
    yield OFF_GRAMMAR, key, verdict.off_grammar
    whole = (UNSAFE, verdict.p_unsafe, verdict.p_unsafe_calibrated, "block" if verdict.unsafe_flagged else None)
    for code, raw, calibrated, action in (
        whole,
        *((score.code, score.marginal, score.calibrated, score.action) for score in verdict.categories),
    ):
        yield MARGINAL, (*key, code), raw
        if calibrated is not None:
            yield SCORE, (*key, code), calibrated
        if action in ("review", "block"):
            yield ACTIONS, (*key, code, action), 1
