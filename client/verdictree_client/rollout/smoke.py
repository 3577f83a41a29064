"""Is what a server loaded the release that was exported? Its golden conversations tell."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from verdictree.releases import calibration as calibrations
from verdictree.releases.release import MARGINALS_MODEL, Release
from verdictree.runtime import golden_check
from verdictree_client.errors import GuardError
from verdictree_client.rollout.errors import Refused, StageFailed
from verdictree_client.rollout.server import Server

_WARM_UP_ROUNDS = 4
_WARM_UP_CONCURRENCY = 4  # at once, so that batches of several sizes run before any user's does


def verified(repository: Path, number: int, models: Iterable[str]) -> tuple[Release, str | None]:
    """A release whose every file of `models` is what was exported, and its default policy's calibration's version.

    Raises InvalidRelease for a release that is damaged.
    """
    release = Release.load_verified(repository, number, frozenset(models))
    fitted = calibrations.load(repository / MARGINALS_MODEL / str(number), release)
    calibration = fitted.get(release.policy.name)
    if not release.golden:
        raise Refused(f"expected golden conversations in release {number}, got none; export it again to roll it out")
    return release, calibration.version if calibration else None


def check(server: Server, ensemble: str, release: Release, calibration: str | None) -> None:
    """Raise StageFailed unless the ensemble gives each golden conversation the scores that it had at export."""
    for golden in release.golden:
        try:
            verdict = server.ask(ensemble, golden_check.asked(release, golden))
        except GuardError as exc:
            raise StageFailed(f"expected release {release.number} to answer its golden conversations: {exc}") from exc
        fault = golden_check.fault(verdict, golden, release, calibration)
        if fault:
            raise StageFailed(f"{ensemble} is not release {release.number} as it was exported: {fault}")


def warm_up(server: Server, ensemble: str, release: Release) -> None:
    """Ask the golden conversations a few times, side by side."""
    conversations = [golden_check.asked(release, golden) for golden in release.golden] * _WARM_UP_ROUNDS
    with ThreadPoolExecutor(_WARM_UP_CONCURRENCY) as pool:
        try:
            list(pool.map(lambda conversation: server.ask(ensemble, conversation), conversations))
        except GuardError as exc:
            raise StageFailed(f"expected release {release.number} to answer side by side: {exc}") from exc
