"""The early exit of a release: after which layer plainly safe conversations leave, and what that was proven to miss.

    log-odds   of the probe, which reads the guard's hidden state after `EarlyExit.layer` layers
    leaves     log-odds < threshold, where the policy and role have a rule; never where they have none
    P(unsafe)  of a conversation that left lies in [0, u]: u by the log-odds, from `ExitRule.bounds`

A rule holds for traffic like the conversations that it was proven on.
"""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from verdictree.conversation import Role

MAX_MISSED = 0.005
"""Of the conversations that a guard would not simply allow, what share may leave early, where nobody says otherwise."""


EXIT_CHECK_SHARE = 0.01
"""Of the conversations that left, what share is judged in full after its answer, where nobody says otherwise."""


class ExitBound(msgspec.Struct, frozen=True):
    """P(unsafe) and every marginal are at most `p_unsafe` where the log-odds are at most `log_odds`."""

    log_odds: float
    p_unsafe: float


class ExitProof(msgspec.Struct, frozen=True):
    """What is proven of a rule, on conversations that the probe was not fitted to (arXiv 2110.01052).

    With probability `confidence` over the draw of those conversations, at most a share `max_missed` of the
    conversations that the guard would not simply allow leave. `num_alerts` of `num_conversations` were such, and
    `num_missed` of them left, of `num_left` in all. `missed_of_all` is an upper limit, with the same confidence, of the
    missed ones' share of all traffic. `bound_coverage` is what share of those that left has P(unsafe) within its
    bound. `data_sha256` is the hash of the conversations, `date` the day of the proof.
    """

    max_missed: float
    confidence: float
    num_conversations: int
    num_alerts: int
    num_left: int
    num_missed: int
    missed_of_all: float
    bound_coverage: float
    data_sha256: str
    date: str


class ExitRule(msgspec.Struct, frozen=True):
    """When conversations leave that a policy judges in messages of one role; `bounds` by rising log-odds."""

    policy: str
    role: Role
    threshold: float
    bounds: tuple[ExitBound, ...]
    proof: ExitProof

    def bound(self, log_odds: float) -> float:
        """The largest P(unsafe) of a conversation that left with these log-odds; 1 above all bounds."""
        index = bisect_left(self.bounds, log_odds, key=lambda bound: bound.log_odds)
        return self.bounds[index].p_unsafe if index < len(self.bounds) else 1.0


class EarlyExit(msgspec.Struct, frozen=True):
    """Where conversations can leave a release's graph, and by which rules; none where nothing is fitted yet."""

    layer: int
    rules: tuple[ExitRule, ...] = ()

    def rule(self, policy: str, role: Role) -> ExitRule | None:
        """The rule of a policy and role, if it has one."""
        return next((rule for rule in self.rules if (rule.policy, rule.role) == (policy, role)), None)
