"""From the graph's outputs to verdicts: the last step of a request."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.calibration import Calibration
from verdictree.exploration import Explored, Floats, unpack
from verdictree.marginals import Marginalizer
from verdictree.release import Release
from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict


class Scorer:
    """Turns what the graph computed for a batch into one verdict a request, calibrated where there is a calibration."""

    def __init__(self, release: Release, calibration: Calibration | None = None) -> None:
        self._release = release
        self._calibration = calibration
        self._marginalize = Marginalizer(release.tree)

    def __call__(
        self,
        label_logits: Floats,
        log_normalizer: Floats,
        top_logit: Floats,
        expansions: npt.NDArray[np.int32],
        *,
        prefix_ids: Sequence[int],
        token_counts: Sequence[tuple[int, int]],
    ) -> list[Verdict]:
        """Verdicts of a batch; the first four as `exploration.unpack` takes them.

        prefix_ids    (batch,) the prompt of each request
        token_counts  (batch, 2) its conversation tokens that were judged, and those that were cut off before
        """
        release = self._release
        explored = unpack(release.tree, release.exploration, label_logits, log_normalizer, top_logit, expansions)
        verdicts = [
            self._verdict(one, int(prefix_id), int(kept), int(cut))
            for one, prefix_id, (kept, cut) in zip(explored, prefix_ids, token_counts, strict=True)
        ]
        return verdicts if self._calibration is None else _calibrated(verdicts, self._calibration)

    def _verdict(self, explored: Explored, prefix_id: int, num_tokens: int, num_truncated: int) -> Verdict:
        release, tree = self._release, self._release.tree
        estimates = self._marginalize(explored)
        scores = zip(release.policy.categories, estimates.marginal, estimates.joint, estimates.conditional, strict=True)
        greedy = estimates.greedy
        return Verdict(
            release=release.number,
            policy=release.policy.name,
            role=release.prompts[prefix_id].role,
            p_unsafe=estimates.p_unsafe,
            p_safe=estimates.p_safe,
            categories=tuple(
                CategoryScore(category.code, category.name, float(marginal), float(joint), float(conditional))
                for category, marginal, joint, conditional in scores
            ),
            unexplored=estimates.unexplored,
            off_grammar=estimates.off_grammar,
            greedy=GreedyVerdict(
                text=greedy.text(tree),
                labels=tuple(tree.labels[step.label] for step in greedy.steps),
                complete=greedy.complete,
            ),
            num_tokens=num_tokens,
            num_truncated_tokens=num_truncated,
        )


def _calibrated(verdicts: Sequence[Verdict], calibration: Calibration) -> list[Verdict]:
    scores, flags = calibration.apply([[score.marginal for score in verdict.categories] for verdict in verdicts])
    p_unsafe, flagged = calibration.apply_unsafe([verdict.p_unsafe for verdict in verdicts])
    return [
        msgspec.structs.replace(
            verdict,
            categories=tuple(
                msgspec.structs.replace(category, calibrated=score, flagged=flag)
                for category, score, flag in zip(verdict.categories, scores[i].tolist(), flags[i].tolist(), strict=True)
            ),
            p_unsafe_calibrated=float(p_unsafe[i]),
            flagged=bool(flagged[i]),
            calibration=calibration.version,
        )
        for i, verdict in enumerate(verdicts)
    ]
