"""The server-side split of a rollout: which of two releases answers a request, and which requests both judge.

It stands in front of the guard only while a canary or a shadow runs. Whatever happens to the candidate, the caller gets
an answer of a release, or the live release's own error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree import verdict as verdicts
from verdictree.conversation import Conversation, parse
from verdictree.errors import InvalidConversation
from verdictree.pair import Pair
from verdictree.releases.repository import CANDIDATE, LIVE
from verdictree.routing import routing_key, share
from verdictree_serving.errors import InvalidModelConfig
from verdictree_serving.triton_steps.shadow_log import ShadowLog

Request = npt.NDArray[np.object_]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests are split: fractions of them in [0, 1], the salt of the choice, and the record's file name."""

    candidate: int
    canary_fraction: float
    shadow_fraction: float
    salt: str
    record: str
    record_texts: bool

    @classmethod
    def parse(cls, parameters: Mapping[str, Mapping[str, str]]) -> Settings:
        """Read a model configuration's `parameters`; InvalidModelConfig where they are not these."""
        values = {key: value["string_value"] for key, value in parameters.items()}
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as exc:
            raise InvalidModelConfig(
                f"the router's parameters do not describe a split ({exc}); start one with `verdictree rollout`"
            ) from exc


@dataclass(frozen=True)
class Answer:
    """What an ensemble answered: a verdict's JSON, or its error as Triton gave it."""

    verdict: bytes = b""
    error: Any = None


class Router:
    """Answers requests; `ask(ensemble, request, timeout)` calls one release. Several threads may answer at once."""

    def __init__(self, settings: Settings, ask: Callable[[str, Request, int], Answer], log: ShadowLog) -> None:
        self._settings = settings
        self._ask = ask
        self._log = log

    def answer(self, request: Request, timeout_us: int) -> Answer:
        """The answer of the release that this request belongs to; it may wait so long in a queue (0: as configured)."""
        conversation = _conversation(request)
        if conversation is None:  # the live release says what is wrong with it
            return self._ask(LIVE, request, timeout_us)
        key, settings = routing_key(conversation), self._settings
        failure = None
        if share(key, settings.salt) < settings.canary_fraction:
            answer, _ = self._timed(CANDIDATE, request, timeout_us)
            if answer.error is None:
                return answer
            failure = answer.error
        answer, live_ms = self._timed(LIVE, request, timeout_us)
        if answer.error is None:
            shown = conversation if settings.record_texts else None
            if failure is not None:
                self._log.record(_pair(shown, answer, live_ms, Answer(error=failure), 0.0))
            elif share(key, "shadow:" + settings.salt) < settings.shadow_fraction:
                self._log.offer(lambda: _pair(shown, answer, live_ms, *self._timed(CANDIDATE, request, 0)))
        return answer

    def _timed(self, ensemble: str, request: Request, timeout_us: int) -> tuple[Answer, float]:
        start = time.perf_counter()
        return self._ask(ensemble, request, timeout_us), 1000 * (time.perf_counter() - start)


def _conversation(request: Request) -> Conversation | None:
    try:
        return parse(request.item()) if request.size == 1 else None
    except InvalidConversation:
        return None


def _pair(
    conversation: Conversation | None, live: Answer, live_ms: float, candidate: Answer, candidate_ms: float
) -> Pair:
    failed = candidate.error is not None
    return Pair(
        live=verdicts.parse(live.verdict),
        live_ms=live_ms,
        candidate=None if failed else verdicts.parse(candidate.verdict),
        candidate_ms=candidate_ms,
        error=str(candidate.error) if failed else "",
        conversation=conversation,
    )
