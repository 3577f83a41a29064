"""Which policies there are: those of the pinned release, read from its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verdictree.errors import VerdictreeError
from verdictree.policy import Policy
from verdictree.releases import repository as repositories
from verdictree.releases.release import MARGINALS_MODEL, Release
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.tenants import Tenant


@dataclass(frozen=True)
class Listed:
    """The policies of a release, its default first."""

    release: int
    policies: tuple[Policy, ...]


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
                release = Release.load(self._repository / MARGINALS_MODEL / str(number))
                self._listed = Listed(number, release.policies)
        except (VerdictreeError, OSError) as exc:
            raise Refused(Reason.UNAVAILABLE, "the policies cannot be read at the moment", 1.0) from exc
        allowed = [one for one in self._listed.policies if not tenant.policies or one.name in tenant.policies]
        return Listed(self._listed.release, tuple(allowed))
