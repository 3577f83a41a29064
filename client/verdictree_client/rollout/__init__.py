"""Rollouts of releases on a running server: every step of `verdictree rollout`, as a Python API.

    from verdictree_client.rollout import Rollout

    with Rollout("model_repository", "127.0.0.1:8001") as rollout:
        rollout.stage(2, reason="retrained on May's reviews")
        rollout.shadow(0.1)
        if rollout.compare().passed:
            rollout.promote()

What an action needs of the repository's disk it reads there, so a rollout runs where the repository is mounted.

    rollout.py ─► actions.py: pin first, then load; journal begun and ended
                     ├── stage.py, smoke.py       load beside the live one, ask its golden conversations
                     ├── traffic.py, configs.py   pinned, or split between two
                     ├── comparing.py             pairs of verdicts ─► verdictree_comparison
                     ├── releases.py              derive, retire
                     └── status.py
    server.py        the running server's control API, at this one place
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
