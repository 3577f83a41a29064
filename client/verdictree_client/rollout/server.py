"""The running server, as a rollout sees and changes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import msgspec
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from verdictree import wire
from verdictree.conversation import Conversation
from verdictree.releases.admin_key import ADMIN_KEY_NAME
from verdictree.releases.release import GRAPH_MODEL
from verdictree.verdict import Verdict
from verdictree_client.connection import TLS, triton_arguments
from verdictree_client.deadline import Deadline
from verdictree_client.errors import GuardError, Overloaded, from_status
from verdictree_client.rollout.errors import ControlFailed, from_triton
from verdictree_client.server import kserve_verdict

_ADMIN_HEADER = f"triton-grpc-protocol-{ADMIN_KEY_NAME}"
_LOAD_SECONDS = 600.0  # a large guard's weights come from a slow disk
_ASK_SECONDS = 60.0
_POLL_SECONDS = 0.05
_OVERLOADED_PAUSE = 0.5


class Server:
    """The control API of one Triton server; every failure is a RolloutError, or a GuardError of `ask`."""

    def __init__(self, url: str, admin_key: Callable[[], str | None], tls: TLS | None) -> None:
        """`admin_key` is asked at every call: a server that is started anew may have made a new one."""
        self._url = url
        self._admin_key = admin_key
        self._triton = InferenceServerClient(**triton_arguments(url, tls))

    def close(self) -> None:
        """Close the connection."""
        self._triton.close()

    def load(self, model: str, config: str | None = None) -> None:
        """Load, or load again, a model as its configuration on disk says, or as `config` (JSON) does."""
        self._call(self._triton.load_model, model, config=config, client_timeout=_LOAD_SECONDS)

    def unload(self, model: str) -> None:
        """Unload a model, and return when its last request is answered; nothing where it is not loaded."""
        if not self.ready_versions(model):
            return
        self._call(self._triton.unload_model, model, client_timeout=_LOAD_SECONDS)
        deadline = time.monotonic() + _LOAD_SECONDS
        while any(entry.name == model and entry.state == "UNLOADING" for entry in self._index()):
            if time.monotonic() > deadline:
                raise ControlFailed(f"expected {model} unloaded within {_LOAD_SECONDS:g} s; a request may hang in it")
            time.sleep(_POLL_SECONDS)

    def ready_versions(self, *models: str) -> set[int]:
        """The versions that take requests, of all these models."""
        index = self._index()
        ready = (
            {int(entry.version) for entry in index if entry.name == model and entry.state == "READY"}
            for model in models
        )
        return set.intersection(*ready)

    def config(self, model: str) -> Mapping[str, Any] | None:
        """A loaded model's configuration as the server holds it, by the proto's field names; None: not loaded."""
        if not self.ready_versions(model):
            return None
        answer = self._call(self._triton.get_model_config, model, as_json=True, client_timeout=_ASK_SECONDS)
        config: Mapping[str, Any] = answer["config"]
        return config

    def batch_size(self) -> int:
        """How many requests the server's graph takes at once, which every model that is loaded must agree with."""
        config = self.config(GRAPH_MODEL)
        if config is None:
            raise ControlFailed(f"expected {GRAPH_MODEL} loaded by the server at {self._url}, got none; start it anew")
        return int(config["max_batch_size"])

    def ask(self, ensemble: str, conversation: Conversation) -> Verdict:
        """What an ensemble says of a conversation; GuardError where it says nothing.

        A queue that is full, or too slow for the callers that it was made for, is asked again for a minute: a guard of
        real size takes seconds for each of several requests side by side, which says nothing against its release.
        """
        tensor = InferInput(wire.REQUEST, [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[msgspec.json.encode(conversation)]], dtype=np.object_))
        deadline = Deadline(_ASK_SECONDS)
        while True:
            try:
                answer = self._triton.infer(ensemble, [tensor], client_timeout=deadline.remaining)
                return kserve_verdict(answer.get_response())
            except InferenceServerException as exc:
                error = _guard_error(exc)
                if not isinstance(error, Overloaded) or deadline.remaining <= _OVERLOADED_PAUSE:
                    raise error from exc
            time.sleep(_OVERLOADED_PAUSE)

    def _index(self) -> Sequence[Any]:
        """Name, version and state of every version of every model that the server has or had."""
        index = self._call(self._triton.get_model_repository_index, client_timeout=_ASK_SECONDS)
        return [model for model in index.models if model.version]

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        key = self._admin_key()
        try:
            return method(*arguments, headers={_ADMIN_HEADER: key} if key else {}, **options)
        except InferenceServerException as exc:
            raise from_triton(exc, self._url) from exc


def _guard_error(exc: InferenceServerException) -> GuardError:
    code = (exc.status() or "").removeprefix("StatusCode.")
    return from_status(grpc.StatusCode.__members__.get(code), exc.message())
