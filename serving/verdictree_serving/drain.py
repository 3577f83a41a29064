"""The end of a server that loses nothing: refuse what is new, answer what is in flight."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from verdictree_serving.gate import Gate
from verdictree_serving.private_http import PrivateHttp

REASON = "the server is draining; try another one, or again"
_POLL_SECONDS = 0.05
_CALL_SECONDS = 5.0
_QUIET_SECONDS = 0.5


def drain(server: PrivateHttp, gate: Gate, models: Sequence[str], is_whole: Callable[[], bool], seconds: float) -> bool:
    """Close the gate, wait until what was let in is answered, and unload ``models``; whether all was answered.

    New requests are refused by the first step, with status UNAVAILABLE, until nothing seems to be in flight any more.
    Only then the models go, which Triton does once their last request is answered: what comes in that moment is told
    NOT_FOUND. ``seconds`` bounds the whole.
    """
    deadline = time.monotonic() + seconds
    gate.close(REASON)
    try:
        _wait_until_quiet(server, is_whole, deadline)
        for model in models:
            server.post(f"/v2/repository/models/{model}/unload", {}, _CALL_SECONDS)
        while is_whole() and time.monotonic() < deadline:
            if not _is_unloading(server, models):
                return True
            time.sleep(_POLL_SECONDS)
    except OSError:  # the server is gone: nothing is in flight
        pass
    return False


def _wait_until_quiet(server: PrivateHttp, is_whole: Callable[[], bool], deadline: float) -> None:
    """Return once no request was answered for a while: a queue would move."""
    answered, since = _num_answered(server), time.monotonic()
    while is_whole() and time.monotonic() < min(deadline, since + _QUIET_SECONDS):
        time.sleep(_POLL_SECONDS)
        now_answered = _num_answered(server)
        if now_answered != answered:
            answered, since = now_answered, time.monotonic()


def _num_answered(server: PrivateHttp) -> Any:
    stats = server.get("/v2/models/stats", _CALL_SECONDS)["model_stats"]
    return [(one["name"], one["version"], one["inference_stats"]["success"]["count"]) for one in stats]


def _is_unloading(server: PrivateHttp, models: Sequence[str]) -> bool:
    index = server.post("/v2/repository/index", {}, _CALL_SECONDS)
    return any(one["name"] in models and one.get("state") == "UNLOADING" for one in index)
