"""The end of a server that loses nothing: refuse what is new, answer what is in flight."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

from verdictree_serving.gate import Gate
from verdictree_serving.server.private_http import PrivateHttp

REASON = "the server is draining; try another one, or again"
_POLL_SECONDS = 0.05
_CALL_SECONDS = 10.0
_QUIET_SECONDS = 0.5
_CLOSED_VERSION = 2**31 - 1  # above every release: what a request gets that names no version


def drain(server: PrivateHttp, gate: Gate, model: str, is_whole: Callable[[], bool], seconds: float) -> bool:
    """Close the gate and wait until what was let in is answered, after `seconds` at most; whether all was.

    With the gate closed, the first step refuses every new request with status UNAVAILABLE. When nothing seems to be in
    flight any more, `model` is loaded once more under another version, the same but behind the closed gate: Triton
    lets go of the former version once its last request is answered, and new ones still find a model that refuses them.
    """
    deadline = time.monotonic() + seconds
    gate.close(REASON)
    try:
        _wait_until_quiet(server, model, is_whole, deadline)
        versions = _states(server, model)
        _load_closed(server, model)
        while is_whole() and time.monotonic() < deadline:
            now = _states(server, model)
            if not any(now.get(version) in ("READY", "UNLOADING") for version in versions):
                return True
            time.sleep(_POLL_SECONDS)
    except OSError:  # the server is gone: nothing is in flight
        pass
    return False


def _wait_until_quiet(server: PrivateHttp, model: str, is_whole: Callable[[], bool], deadline: float) -> None:
    """Wait until no request was answered for a while: a queue would move."""
    answered, since = _num_answered(server, model), time.monotonic()
    while is_whole() and time.monotonic() < min(deadline, since + _QUIET_SECONDS):
        time.sleep(_POLL_SECONDS)
        now_answered = _num_answered(server, model)
        if now_answered != answered:
            answered, since = now_answered, time.monotonic()


def _num_answered(server: PrivateHttp, model: str) -> list[int]:
    """How often each version has answered, refusals left out."""
    stats = server.get(f"/v2/models/{model}/stats", _CALL_SECONDS)["model_stats"]
    return [version["inference_stats"]["success"]["count"] for version in stats]


def _load_closed(server: PrivateHttp, model: str) -> None:
    config = server.get(f"/v2/models/{model}/config", _CALL_SECONDS)
    config["version_policy"] = {"specific": {"versions": [_CLOSED_VERSION]}}
    # Triton wants a folder for each version; a file that comes with the call makes one, wherever the repository lies.
    file = base64.b64encode(b"closed").decode()
    body = {"parameters": {"config": json.dumps(config), f"file:{_CLOSED_VERSION}/closed": file}}
    server.post(f"/v2/repository/models/{model}/load", body, _CALL_SECONDS)


def _states(server: PrivateHttp, model: str) -> dict[str, str]:
    """The state of each version of the model."""
    index = server.post("/v2/repository/index", {}, _CALL_SECONDS)
    return {entry["version"]: entry["state"] for entry in index if entry["name"] == model and "version" in entry}
