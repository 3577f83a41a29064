"""Rollouts of releases on a running server: every step of `verdictree rollout`, as a Python API.

    from verdictree_client.rollout import Rollout

    with Rollout("model_repository", "127.0.0.1:8001") as rollout:
        rollout.stage(2, reason="retrained on May's reviews")
        rollout.shadow(0.1)
        if rollout.compare().passed:
            rollout.promote()

What an action needs of the repository's disk it reads there, so a rollout runs where the repository is mounted.
"""

from verdictree_client.rollout.errors import (
    ControlFailed,
    GatesFailed,
    NotPermitted,
    Refused,
    RolloutError,
    ServerAway,
    StageFailed,
)
from verdictree_client.rollout.rollout import Rollout
from verdictree_client.rollout.status import Status

__all__ = [
    "ControlFailed",
    "GatesFailed",
    "NotPermitted",
    "Refused",
    "Rollout",
    "RolloutError",
    "ServerAway",
    "StageFailed",
    "Status",
]
