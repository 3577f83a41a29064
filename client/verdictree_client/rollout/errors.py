"""The errors of rollouts; every message says what was expected, what was got, and the fix.

VerdictreeError
└── RolloutError
    ├── Refused         the action does not fit the state that the releases are in; nothing was changed
    ├── GatesFailed     the candidate may not be promoted; nothing was changed
    ├── NotPermitted    the server's control API needs the admin key; nothing was changed
    ├── StageFailed     the candidate did not load, or is not what was exported; the live release is as it was
    ├── ControlFailed   the server refused a step that it should have taken
    └── ServerAway      the server did not answer; the state on disk says what it will serve
"""

from __future__ import annotations

from tritonclient.utils import InferenceServerException

from verdictree.errors import VerdictreeError


class RolloutError(VerdictreeError):
    """Any error that a rollout raises on purpose."""


class Refused(RolloutError):
    """The action does not fit the state that the releases are in."""


class GatesFailed(Refused):
    """The candidate may not be promoted."""


class NotPermitted(RolloutError):
    """The server's control API needs the admin key."""


class StageFailed(RolloutError):
    """The candidate did not load, or is not what was exported."""


class ControlFailed(RolloutError):
    """The server refused a step that it should have taken."""


class ServerAway(RolloutError):
    """The server did not answer."""


_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")


def from_triton(exc: InferenceServerException, url: str) -> RolloutError:
    """The error that Triton's answer to a control call means."""
    message = " ".join((exc.message() or "no message").split())
    if "restricted" in message:
        return NotPermitted(
            f"expected the admin key of the server at {url}, got none or another; give --admin-key-file with the file "
            "that `verdictree serve` was started with"
        )
    if exc.status() in _AWAY:
        return ServerAway(f"expected a server at {url}, got no answer ({message}); start it with `verdictree serve`")
    return ControlFailed(f"the server at {url} refused: {message.partition(' At: ')[0]}")
