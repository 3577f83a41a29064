"""Verdicts and callers made by hand."""

from __future__ import annotations

from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict
from verdictree_gateway.observing.caller import Caller
from verdictree_gateway.tenants import EVERYBODY, Account


def verdict(p_unsafe: float = 0.1, *marginals: float, release: int = 1, **fields) -> Verdict:
    """A verdict with a category S1, S2, … for each marginal."""
    scores = tuple(CategoryScore(f"S{i}", f"Hazard {i}", p, p, p, p) for i, p in enumerate(marginals or (0.1,), 1))
    given = {"role": "user", "policy": "tiny", "unexplored": 0.0, "off_grammar": 0.0, "num_tokens": 9, **fields}
    return Verdict(
        release=release,
        p_unsafe=p_unsafe,
        p_safe=1.0 - p_unsafe,
        categories=scores,
        greedy=GreedyVerdict("safe", ("safe",), True),
        num_truncated_tokens=0,
        **given,
    )


def caller(**fields) -> Caller:
    return Caller(**{"account": Account(EVERYBODY), "request_id": "r-1", "port": "http", **fields})
