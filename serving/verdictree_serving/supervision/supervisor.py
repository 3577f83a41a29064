"""Keeps a server up: starts it, watches it, starts it anew with backoff where it fails, drains it at the end."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event
from typing import Protocol

from verdictree import wire
from verdictree_serving.errors import ServerFailed, Stopped
from verdictree_serving.server.launcher import TritonServer
from verdictree_serving.supervision.health import Health
from verdictree_serving.supervision.self_check import SelfCheck

_POLL_SECONDS = 0.2
_PROBE_EVERY_SECONDS = 1.0
_SILENT_SECONDS = 10.0  # a busy server may leave probes unanswered; after a while balancers should know
_UNLOADED_SECONDS = 2.0
_GONE_SECONDS = 30.0  # a server that answers, but has no guard: a rollout that went wrong
_RED_SECONDS = 0.3  # balancers see a red light before the first request is refused
_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 30.0
_MAX_FAILURES, _WINDOW_SECONDS = 5, 300.0


class Gateway(Protocol):
    """What stands before the server, as its supervisor sees it."""

    def start(self, triton: Sequence[str]) -> None:
        """Let it answer, asking at these addresses."""

    def replace_dead(self) -> str | None:
        """Start anew what has died; what happened, or None."""

    def drain(self, seconds: float) -> bool:
        """Answer what is in flight for at most so many seconds, take nothing new, and end; whether all was."""


class Supervisor:
    """Runs a server until told to stop, or until it fails again and again.

    `prepare` makes the repository ready for a start and returns the pinned release; `tell` is told, in a line,
    what a person should know. `stopped` ends the whole at any moment.
    """

    def __init__(
        self,
        server: TritonServer,
        prepare: Callable[[], int],
        health: Health,
        self_check: SelfCheck,
        tell: Callable[[str], None],
        stopped: Event,
        gateway: Gateway,
    ) -> None:
        self._server = server
        self._prepare = prepare
        self._health = health
        self._self_check = self_check
        self._tell = tell
        self._stopped = stopped
        self._gateway = gateway
        self._failures: deque[float] = deque()

    def run(self, started: Callable[[int], None], drain_seconds: float) -> None:
        """Start, tell `started` the release, watch until stopped, drain.

        Raises `ServerFailed` where the first start fails, or a running server fails too often; whatever `prepare` and
        `TritonServer` raise. A stop before the server is ready ends it at once.
        """
        try:
            number = self._start()
            self._gateway.start([self._server.grpc_address])
            self._health.reason = ""
            started(number)
            while (failure := self._watch()) is not None:
                self._start_anew(failure)
            self._drain(drain_seconds)
        except Stopped:
            self._health.reason = "stopping"
        except BaseException:
            self._health.reason, self._health.has_given_up = "failed", True
            raise
        finally:
            self._self_check.end()
            self._server.stop(grace=0.0)

    def _start(self) -> int:
        number = self._prepare()
        if self._stopped.is_set():
            raise Stopped("told to stop before the server was started")
        self._server.start()
        self._server.wait_ready(timeout=math.inf, stopped=self._stopped.is_set)
        self._self_check.begin(self._server, number)
        return number

    def _watch(self) -> str | None:
        """Why the server must be started anew, once it must; None once told to stop."""
        guard = _GuardProbe(self._server)
        while not self._stopped.wait(_POLL_SECONDS):
            failure = self._server.failure() or guard.failure()
            if failure is not None:
                return failure
            self._health.reason = guard.fault() or self._self_check.fault
            if (happened := self._gateway.replace_dead()) is not None:
                self._tell(happened)
        return None

    def _start_anew(self, failure: str) -> None:
        """Start until the server is ready; raise `ServerFailed` where it fails too often."""
        while True:
            self._health.reason = failure
            self._self_check.end()
            self._server.stop(grace=0.0)
            pause = self._pause_after(failure)
            self._tell(f"{failure}; starting again in {pause:g} s")
            if self._stopped.wait(pause):
                raise Stopped("told to stop while the server was down")
            self._health.restarts.inc()
            try:
                self._tell(f"release {self._start()} is ready again")
                self._health.reason = ""
                return
            except ServerFailed as exc:
                failure = str(exc)

    def _pause_after(self, failure: str) -> float:
        now = time.monotonic()
        self._failures.append(now)
        while now - self._failures[0] > _WINDOW_SECONDS:
            self._failures.popleft()
        if len(self._failures) >= _MAX_FAILURES:
            raise ServerFailed(
                f"the server failed {len(self._failures)} times within {_WINDOW_SECONDS:g} s, the last time: {failure}"
            )
        return float(min(_BACKOFF_SECONDS * 2 ** (len(self._failures) - 1), _MAX_BACKOFF_SECONDS))

    def _drain(self, seconds: float) -> None:
        self._health.reason = "draining"
        self._self_check.end()
        time.sleep(min(_RED_SECONDS, seconds))
        begin = time.monotonic()
        all_answered = self._gateway.drain(seconds)
        if not self._server.drain(max(0.0, begin + seconds - time.monotonic())) or not all_answered:
            self._tell(f"not everything in flight was answered within {seconds:g} s")


class _GuardProbe:
    """Asks, now and then, whether the guard takes requests. Silence is no failure: a busy server is not dead."""

    def __init__(self, server: TritonServer) -> None:
        self._server = server
        self._asked = self._answered = self._loaded = time.monotonic()

    def fault(self) -> str:
        """Why requests should go elsewhere, or an empty text."""
        now = time.monotonic()
        if not self._server.is_whole():
            return "a process of the server is dead or stopped"
        if now - self._answered > _SILENT_SECONDS:
            return f"the server has not answered for {now - self._answered:.0f} s"
        return "the guard is not loaded" if now - self._loaded > _UNLOADED_SECONDS else ""

    def failure(self) -> str | None:
        """Why the server must be started anew, or None."""
        now = time.monotonic()
        if now - self._asked >= _PROBE_EVERY_SECONDS:
            answer = self._server.answers(wire.MODEL)
            self._asked = now = time.monotonic()
            self._answered = self._answered if answer is None else now
            self._loaded = self._loaded if answer is False else now  # silence says nothing of the guard
        if now - self._loaded > _GONE_SECONDS:
            return f"the guard was not loaded for {_GONE_SECONDS:g} s"
        return None
