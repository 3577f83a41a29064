"""Which policies there are: those of the pinned release, read from its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from verdictree.errors import VerdictreeError
from verdictree.policy import Policy
from verdictree.releases import calibration as calibrations
from verdictree.releases import repository as repositories
from verdictree.releases.calibration import Calibration
from verdictree.releases.decision import Limits
from verdictree.releases.release import MARGINALS_MODEL, Release
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.tenants import Tenant


@dataclass(frozen=True)
class ServedPolicy:
    """A policy and from which scores on it acts: on the whole answer, and on each of its categories.

    `calibration` is the policy's, None where it has none.
    """

    policy: Policy
    whole: Limits
    categories: tuple[Limits, ...]
    calibration: Calibration | None = None

    @classmethod
    def of(cls, policy: Policy, calibration: Calibration | None) -> Self:
        """With the thresholds that a calibration has fitted, where the policy has none of its own."""
        fitted = (None,) * len(policy.categories) if calibration is None else calibration.categories
        limits = tuple(Limits.of(one, outcome) for one, outcome in zip(policy.categories, fitted, strict=True))
        return cls(policy, Limits.of(policy, None if calibration is None else calibration.unsafe), limits, calibration)


@dataclass(frozen=True)
class Listed:
    """The policies of a release, its default first."""

    release: int
    policies: tuple[ServedPolicy, ...]


class Policies:
    """Those of the release that a repository pins; a promotion changes them."""

    def __init__(self, repository: Path | None) -> None:
        self._repository = repository
        self._listed: Listed | None = None

    def of(self, tenant: Tenant) -> Listed:
        """Those that a tenant may ask by; Refused where no repository is known."""
        if self._repository is None:
            raise Refused(
                Reason.NOT_FOUND, "no policies are listed here: this gateway was started without --repository"
            )
        try:
            number = repositories.pinned(self._repository)
            if self._listed is None or self._listed.release != number:
                directory = self._repository / MARGINALS_MODEL / str(number)
                release = Release.load(directory)
                fitted = calibrations.load(directory, release)
                served = (ServedPolicy.of(one, fitted.get(one.name)) for one in release.policies)
                self._listed = Listed(number, tuple(served))
        except (VerdictreeError, OSError) as exc:
            raise Refused(Reason.UNAVAILABLE, "the policies cannot be read at the moment", 1.0) from exc
        names = tenant.policies
        allowed = [one for one in self._listed.policies if not names or one.policy.name in names]
        return Listed(self._listed.release, tuple(allowed))
