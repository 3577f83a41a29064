"""What a policy's thresholds would do: the scores of the labelled rows that it was calibrated on, as counts."""

from __future__ import annotations

import msgspec

from verdictree.policy import UNSAFE
from verdictree_gateway.policies import Listed
from verdictree_gateway.refused import Reason, Refused


class CategoryScores(msgspec.Struct):
    """One category's, or with the code `unsafe` the whole answer's: how many rows that have it and have it not.

    `positives[i]` are those with edges[i] ≤ score < edges[i + 1]; `threshold` and `review` are in effect.
    """

    code: str
    name: str
    threshold: float | None
    review: float | None
    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]


class Answer(msgspec.Struct):
    """The scores of a policy's rows.

    `unlabelled` says how a category counts that a row says nothing of: left out, or as one that the row has not.
    """

    release: int
    policy: str
    calibration: str
    unlabelled: str
    scores: list[CategoryScores]


def answer(listed: Listed, name: str | None) -> Answer:
    """Those of a listed policy, the first where none is named; Refused where there are none."""
    served = next((one for one in listed.policies if name in (None, one.policy.name)), None)
    if served is None:
        raise Refused(Reason.NOT_FOUND, "expected a policy of /v1/policies, got another; name one of those")
    fitted = served.calibration
    outcomes = () if fitted is None else (fitted.unsafe, *fitted.categories)
    if fitted is None or any(one.scores is None for one in outcomes):
        raise Refused(
            Reason.NOT_FOUND,
            f"release {listed.release} holds no scores of labelled rows for this policy: `verdictree calibrate` keeps "
            "them, and `verdictree rollout derive` makes a release with them",
        )
    names = {UNSAFE: "the whole answer: P(unsafe)", **{one.code: one.shown for one in served.policy.categories}}
    limits = (served.whole, *served.categories)
    scores = []
    for one, of in zip(outcomes, limits, strict=True):
        if (counts := one.scores) is not None:
            said = (one.code, names[one.code], of.threshold, of.review)
            scores.append(CategoryScores(*said, counts.edges, counts.positives, counts.negatives))
    return Answer(listed.release, served.policy.name, fitted.version, fitted.unlabelled, scores)
