"""What a guard call says on the wire and what its answer means: all that the sync and the asyncio client share."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

import msgspec
import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.utils import InferenceServerException

from verdictree import verdict, wire
from verdictree.conversation import MAX_MESSAGES, Conversation, Message, Truncate, parse, validated
from verdictree.errors import InvalidConversation
from verdictree.text.visible import bounded, quoted
from verdictree.verdict import Verdict
from verdictree_client.connection import TLS, triton_arguments
from verdictree_client.deadline import Deadline, Retries, seconds
from verdictree_client.errors import InvalidRequest, InvalidSettings, ServerFailure, ServerUnavailable, from_triton

POLL_INTERVAL = 0.1
DEFAULT_RETRIES = Retries()

Messages = str | Sequence[Mapping[str, str]] | Sequence[Message] | Conversation


class CallOptions(TypedDict, total=False):
    """The options of one call, as `classify` and `classify_many` take them."""

    policy: str | None
    truncate: Truncate | None
    deadline: float | None


@dataclass(frozen=True)
class Health:
    """What the server says of itself.

    live: the server answers. ready: the guard is loaded and takes requests. reason: why not, where an error told.
    """

    live: bool
    ready: bool
    reason: str = ""


class Call:
    """One classification: what to send, how long it may take, what an answer or a failure means."""

    def __init__(
        self, body: bytes, deadline: Deadline, retries: Retries, url: str = "", api_key: str | None = None
    ) -> None:
        self._tensor = InferInput(wire.REQUEST, [1, 1], "BYTES")
        self._tensor.set_data_from_numpy(np.array([[body]], dtype=np.object_))
        self._deadline = deadline
        self._retries = retries
        self._num_retries = 0
        self._url = url
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else None

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of tritonclient's `infer` for the next attempt.

        `timeout` (µs) is how long the request may wait in the server's queues: a part of the time that is left, so that
        nothing is computed whose caller has gone.
        """
        remaining = self._deadline.remaining
        queued = max(1, int(1e6 * wire.QUEUED_SHARE * remaining))  # 0 would be no limit
        times = {"client_timeout": remaining, "timeout": queued}
        return {"model_name": wire.MODEL, "inputs": [self._tensor], "headers": self._headers, **times}

    def pause(self, exc: InferenceServerException) -> float:
        """Seconds to wait before the next attempt; raises the GuardError that `exc` means where there is none."""
        error = from_triton(exc, self._url)
        pause = self._retries.pause(self._num_retries)
        if not self._retries.allow(error, self._num_retries) or pause >= self._deadline.remaining:
            raise error from exc
        self._num_retries += 1
        return pause


class BaseClient:
    """A client's settings, checked once, and the calls made from them."""

    def __init__(
        self,
        url: str = wire.URL,
        *,
        deadline: float = wire.DEADLINE,
        tls: TLS | None = None,
        retries: Retries = DEFAULT_RETRIES,
        api_key: str | None = None,
    ) -> None:
        if api_key is not None and not _API_KEY.fullmatch(api_key):
            raise InvalidSettings("expected an API key of visible ASCII characters, got another text; give yours")
        self._api_key = api_key
        self._url = url
        self._deadline = seconds(deadline, "deadline")
        self._retries = retries
        self._connection = triton_arguments(url, tls)

    def _until(self, deadline: float | None) -> Deadline:
        return Deadline(self._deadline if deadline is None else seconds(deadline, "deadline"))

    def _call(
        self,
        messages: Messages,
        policy: str | None,
        truncate: Truncate | None,
        deadline: float | None,
        routing_key: str | None = None,
    ) -> Call:
        body = request_body(messages, policy, truncate, routing_key)
        return Call(body, self._until(deadline), self._retries, self._url, self._api_key)

    def _poll_pause(self, health: Health, until: Deadline) -> float:
        if not until.remaining:
            raise ServerUnavailable(
                f"expected model {wire.MODEL!r} ready at {self._url} in time, got {health}; "
                "check that the server runs there"
            )
        return min(POLL_INTERVAL, until.remaining)


def request_body(
    messages: Messages,
    policy: str | None = None,
    truncate: Truncate | None = None,
    routing_key: str | None = None,
) -> bytes:
    """The request's JSON; InvalidRequest for what the server would refuse. The other arguments override."""
    if isinstance(messages, Conversation):
        policy, truncate = policy or messages.policy, truncate or messages.truncate
        routing_key = messages.routing_key if routing_key is None else routing_key
        messages = messages.messages
    elif isinstance(messages, str):
        messages = [Message("user", messages)]
    fields = {"messages": _turns(messages), "policy": policy, "truncate": truncate, "routing_key": routing_key}
    try:
        conversation = msgspec.convert({name: _exact(value) for name, value in fields.items()}, Conversation)
        body = validated(conversation).to_json()
        parse(body)
    except msgspec.ValidationError as exc:
        raise InvalidRequest(f"{bounded(str(exc), 200)}; give a str or messages such as {_EXAMPLE}") from exc
    except UnicodeEncodeError as exc:
        raise InvalidRequest("expected Unicode text, got a lone surrogate in a role or in a field's name") from exc
    except InvalidConversation as exc:
        raise InvalidRequest(str(exc)) from exc
    return body


def read_verdict(result: InferResult) -> Verdict:
    """The verdict in the server's answer; ServerFailure where it holds none, or numbers that are no probabilities."""
    try:
        answer = verdict.parse(result.as_numpy(wire.VERDICT).item())
        if fault := answer.fault():
            raise ValueError(fault)
        return answer
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, struct.error) as exc:
        raise ServerFailure(
            f"expected a verdict's JSON in tensor {wire.VERDICT!r}, got something else ({exc}); "
            f"check that {wire.MODEL!r} is a Verdictree guard of this client's version"
        ) from exc


def check_bulk(items: object, concurrency: int) -> None:
    """Refuse at once, not at the first verdict, what `classify_many` cannot mean."""
    if isinstance(items, str):
        raise InvalidRequest("expected an iterable of conversations, got one str; pass it to classify, or in a list")
    if concurrency < 1:
        raise InvalidSettings(f"expected a concurrency of 1 or more, got {concurrency}; 1 sends one request at a time")


def _turns(messages: object) -> object:
    """The messages as plain lists, dicts and str where they are such; what is neither is left for the error."""
    if isinstance(messages, bytes | bytearray | str | Mapping) or not isinstance(messages, Iterable):
        return messages
    try:
        # One more than a request may have, which is enough to refuse it.
        return [_fields(message) for message in islice(messages, MAX_MESSAGES + 1)]
    except TypeError as exc:  # numpy's arrays without dimensions say that they can be iterated over
        raise InvalidRequest(f"expected a str or messages such as {_EXAMPLE}, got {quoted(messages)}") from exc


def _fields(message: object) -> object:
    # Unfolded, since convert trusts a Message that was built with the wrong types.
    if isinstance(message, Message):
        message = msgspec.structs.asdict(message)
    if isinstance(message, Mapping):
        return {_exact(key): _exact(value) for key, value in message.items()}
    return message


def _exact(value: object) -> object:
    # Subclasses of str (numpy's, enumerations, marked up text) are text; msgspec takes str itself only.
    return str.__str__(value) if isinstance(value, str) else value


_API_KEY = re.compile("[!-~]+")
_EXAMPLE = '[{"role": "user", "content": "…"}], roles user and assistant'
