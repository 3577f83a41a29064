"""The scores of the rows that a release was calibrated on, as its calibration holds them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from verdictree.errors import VerdictreeError
from verdictree.policy import UNSAFE
from verdictree.releases import calibration as calibrations
from verdictree.releases.release import MARGINALS_MODEL, Release
from verdictree.releases.score_counts import ScoreCounts

log = logging.getLogger("verdictree.drift")


class CalibratedOn:
    """Finds them in a model repository, where one is known here."""

    def __init__(self, repository: Path | None) -> None:
        self._repository = repository

    def __call__(self, release: int, policy: str) -> Mapping[str, ScoreCounts] | None:
        """Those of a policy of a release, by code; None where its calibration holds none, or cannot be read.

        A release is served whether they can be read or not: a fault costs an index, and a line in the log.
        """
        if self._repository is None:
            return None
        directory = self._repository / MARGINALS_MODEL / str(release)
        try:
            found = calibrations.load(directory, Release.load(directory)).get(policy)
        except (VerdictreeError, OSError) as exc:
            log.warning("no drift against the calibration of release %d: %s", release, exc)
            return None
        outcomes = () if found is None else (found.unsafe, *found.categories)
        scores = {one.code: one.scores for one in outcomes if one.scores is not None}
        return scores if UNSAFE in scores else None
