"""Fit the early exit of a release's graph: a rule for each policy and role that enough conversations show."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import torch

from verdictree.conversation import Conversation, Role
from verdictree.errors import UnsupportedGuard
from verdictree.releases.early_exit import MAX_MISSED, EarlyExit, ExitProof, ExitRule
from verdictree.releases.release import Release
from verdictree_export.defaults import EXIT_CONFIDENCE
from verdictree_export.early_exit import probe_fit, risk_control
from verdictree_export.early_exit.observations import Observations
from verdictree_export.early_exit.probe_fit import Probe
from verdictree_export.graph.exit_probe import ExitProbe

_LEAST_FITTED = 200  # conversations, of which so many teach a probe next to nothing
_CANDIDATES = 200

Key = tuple[str, Role]


@dataclass(frozen=True)
class Fit:
    """An early exit: what stands in the manifest, the probe as the graph holds it, and why a policy has no rule."""

    early_exit: EarlyExit
    probe: ExitProbe
    without_rule: dict[Key, str]


def fit(
    observed: Mapping[Key, Observations],
    release: Release,
    layer: int,
    max_missed: float = MAX_MISSED,
    confidence: float = EXIT_CONFIDENCE,
) -> Fit:
    """Fit a probe on one half of the conversations and prove its threshold on the other, for each policy and role.

    With probability `confidence` at most a share `max_missed` of the conversations leaves that the guard would not
    simply allow. A policy that says `exact` has no rule.
    Raises UnsupportedGuard where no policy gets a rule, for a want of conversations or of a probe that is good enough.
    """
    check(release)
    rules, probes, without_rule = list[ExitRule](), dict[Key, Probe](), dict[Key, str]()
    for policy in release.policies:
        for role in policy.roles:
            key = policy.name, role
            if policy.exact:
                without_rule[key] = "the policy asks for the full pass"
            elif key not in observed:
                without_rule[key] = "no conversation of it was given"
            else:
                fitted = _rule(observed[key], *key, max_missed, confidence)
                if isinstance(fitted, str):
                    without_rule[key] = fitted
                else:
                    rule, probes[key] = fitted
                    rules.append(rule)
    if not rules:
        said = "; ".join(f"{policy}, {role}: {why}" for (policy, role), why in without_rule.items())
        raise UnsupportedGuard(f"expected conversations by which an early exit can be proven, got none ({said})")
    early_exit = EarlyExit(layer, tuple(rules))
    size = len(next(iter(probes.values())).weight) // 2
    return Fit(early_exit, _buffers(release, early_exit, probes, size), without_rule)


def check(release: Release) -> None:
    """Raise UnsupportedGuard for a guard that can have no early exit: limits of several answers make no verdict."""
    if release.tree.grammar.per_category:
        raise UnsupportedGuard(
            "expected a guard that answers once for an early exit, got one that is asked about one category at a time"
        )


def _rule(
    observed: Observations, policy: str, role: Role, max_missed: float, confidence: float
) -> tuple[ExitRule, Probe] | str:
    """The rule with its probe, or why there is none."""
    proving = _second_half(observed.conversations)
    fitting, proof = observed.part(~proving), observed.part(proving)
    needed, got = risk_control.alerts_needed(max_missed, confidence), int(proof.alert.sum())
    if got < needed or len(fitting) < _LEAST_FITTED:
        return (
            f"expected at least {needed} conversations to prove it on that the guard does not simply allow, about "
            f"{2 * needed} in all, got {got} of {len(observed)} conversations; give more, or allow more to be missed"
        )
    try:
        fitted = probe_fit.fit(fitting, max_missed)
    except ValueError as exc:
        return str(exc)
    candidates = np.unique(np.quantile(fitted.log_odds, np.linspace(0, 1, _CANDIDATES))).tolist()
    log_odds = fitted.probe.log_odds(proof.features)
    threshold = risk_control.proven_threshold(log_odds, proof.alert, candidates, max_missed, confidence)
    leaves = log_odds < (-np.inf if threshold is None else threshold)
    if threshold is None or not leaves.any():
        return "the probe is not good enough: nobody could leave"
    missed = int((leaves & proof.alert).sum())
    certificate = ExitProof(
        max_missed=max_missed,
        confidence=confidence,
        num_conversations=len(proof),
        num_alerts=got,
        num_left=int(leaves.sum()),
        num_missed=missed,
        missed_of_all=risk_control.upper_limit(missed, len(proof), confidence),
        bound_coverage=risk_control.COVERAGE,
        data_sha256=_sha256(observed.conversations),
        date=datetime.now(UTC).date().isoformat(),
    )
    limits = risk_control.bounds(log_odds, proof.top, threshold)
    return ExitRule(policy, role, threshold, limits, certificate), fitted.probe


def _second_half(conversations: tuple[Conversation, ...]) -> npt.NDArray[np.bool_]:
    """(n,) which conversations prove: by their hash, so that one that is given twice is on one side."""
    return np.array([hashlib.sha256(one.to_json()).digest()[0] % 2 == 1 for one in conversations])


def _sha256(conversations: tuple[Conversation, ...]) -> str:
    digest = hashlib.sha256()
    for body in sorted(one.to_json() for one in conversations):
        digest.update(body + b"\n")
    return digest.hexdigest()


def _buffers(release: Release, early_exit: EarlyExit, probes: Mapping[Key, Probe], size: int) -> ExitProbe:
    blank = ExitProbe.blank(len(release.prompts), size)
    for number, prompt in enumerate(release.prompts):
        rule = early_exit.rule(prompt.policy, prompt.role)
        if rule is not None:
            probe = probes[prompt.policy, prompt.role]
            blank.weight[number] = torch.from_numpy(probe.weight)
            blank.offset[number] = probe.offset
            blank.threshold[number] = rule.threshold
    return blank
