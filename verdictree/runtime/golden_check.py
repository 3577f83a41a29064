"""Is what a server says of a golden conversation what the release said of it at its export?"""

from __future__ import annotations

from verdictree.conversation import Conversation
from verdictree.releases.calibration import log_odds
from verdictree.releases.proofs import Golden
from verdictree.releases.release import Release
from verdictree.verdict import Verdict


def matching(release: Release, golden: Golden) -> Golden | None:
    """The golden conversation of a release that asks the same as another release's."""
    return next((one for one in release.golden if one.messages == golden.messages), None)


def asked(release: Release, golden: Golden) -> Conversation:
    """The request to which a release must give the golden scores: one that leaves its graph early has none."""
    return Conversation(golden.messages, exact=release.early_exit is not None)


def fault(verdict: Verdict, golden: Golden | None, release: Release, calibration: str | None) -> str | None:
    """What differs between a verdict and the golden one, in words; None where nothing does, or there is none.

    `calibration` is the version that the release's default policy is calibrated by.
    """
    served, meant = (verdict.release, verdict.calibration), (release.number, calibration)
    if served != meant:
        return f"expected (release, calibration) {meant}, got {served}"
    codes = tuple(score.code for score in verdict.categories)
    asked = release.policy.of_role(verdict.role).codes
    if codes != asked:
        return f"expected categories {asked}, got {codes}"
    if golden is None:
        return None
    said = (verdict.p_unsafe, verdict.p_safe, *(score.marginal for score in verdict.categories))
    expected = (golden.p_unsafe, golden.p_safe, *golden.marginal)
    names = ("p_unsafe", "p_safe", *codes)
    for name, got, wanted in zip(names, said, expected, strict=True):
        if not abs(log_odds(got) - log_odds(wanted)) <= golden.tolerance:  # so written, a NaN is a fault
            return f"expected {name} {wanted:.4f} for {golden.messages[-1].content!r}, got {got:.4f}"
    return None
