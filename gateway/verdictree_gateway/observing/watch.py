"""What the gateway counts and writes down of each request: metrics of the domain, a log line; never a text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from verdictree.conversation import Conversation
from verdictree.policy import UNSAFE
from verdictree.verdict import Verdict
from verdictree_gateway.observing.audit import LOST, WRITTEN, Audit
from verdictree_gateway.observing.caller import Caller
from verdictree_gateway.observing.drift import SCORE_BUCKETS, Drift
from verdictree_gateway.refused import Refused
from verdictree_gateway.settings import Settings

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_OF_VERDICT = ("release", "policy", "role")
log = logging.getLogger("verdictree.requests")


class Watch:
    """The metrics of one gateway process. Labels are the gateway's and the release's own words, never a caller's."""

    def __init__(self, settings: Settings, process: str = "0") -> None:
        self._log_requests = settings.log_requests
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests, by port and outcome.", "port", "outcome")
        self._seconds = self._histogram("request_seconds", "Until the answer.", _SECONDS, "port")
        self._actions = self._counter(
            "actions",
            "Verdicts, by what is to be done; of a category only reviews and blocks.",
            *_OF_VERDICT,
            "category",
            "action",
        )
        self._raw = self._histogram("marginal", "P(category), raw.", SCORE_BUCKETS, *_OF_VERDICT, "category")
        self._calibrated = self._histogram("score", "P(category), calibrated.", SCORE_BUCKETS, *_OF_VERDICT, "category")
        self._unexplored = self._histogram("unexplored", "Answers not followed.", SCORE_BUCKETS, *_OF_VERDICT)
        self._off_grammar = self._histogram("off_grammar", "Answers off the grammar.", SCORE_BUCKETS, *_OF_VERDICT)
        self._undecided = self._counter("undecided", "Verdicts that are none.", *_OF_VERDICT)
        self._truncated = self._counter("truncated", "Conversations that were cut.", *_OF_VERDICT)
        self._tokens = self._histogram("tokens", "Tokens of a conversation.", _TOKENS, *_OF_VERDICT)
        self.in_flight = Gauge("verdictree_in_flight", "Requests that wait for verdicts.", registry=self.registry)
        limit = Gauge("verdictree_in_flight_limit", "Requests that are let in at once.", registry=self.registry)
        limit.set(settings.max_in_flight)
        self._drift = Drift(process)
        self.registry.register(self._drift)
        lines = self._counter("audit_lines", "Lines of the audit log, by outcome.", "outcome")
        outcomes = {outcome: lines.labels(outcome) for outcome in (WRITTEN, LOST)}
        self._audit = Audit(settings, process, lambda outcome: outcomes[outcome].inc())
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def answered(self, caller: Caller, conversation: Conversation, verdict: Verdict, seconds: float) -> None:
        """Count a verdict."""
        self._requests.labels(caller.port, "ok").inc()
        self._seconds.labels(caller.port).observe(seconds)
        key = (str(verdict.release), verdict.policy, verdict.role)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(self, key)
        kind.count(verdict)
        self._drift.seen(verdict)
        self._audit.verdict(caller, conversation, verdict)
        if self._log_requests:
            said = {"release": verdict.release, "policy": verdict.policy, "role": verdict.role}
            self._line(caller, "ok", seconds, {**said, "flagged": verdict.flagged, "tokens": verdict.num_tokens})

    def refused(self, caller: Caller, refused: Refused, seconds: float) -> None:
        """Count a refusal."""
        self.turned_away(caller.port, refused)
        if self._log_requests:
            self._line(caller, refused.reason.name.lower(), seconds, {})

    def turned_away(self, port: str, refused: Refused) -> None:
        """Count a refusal of nobody that is known."""
        self._requests.labels(port, refused.reason.name.lower()).inc()

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return bytes(generate_latest(self.registry))

    def _line(self, caller: Caller, outcome: str, seconds: float, fields: Mapping[str, Any]) -> None:
        who = {"request_id": caller.request_id, "tenant": caller.account.tenant.name, "port": caller.port}
        log.info("request", extra={"fields": {**who, "outcome": outcome, "seconds": round(seconds, 6), **fields}})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"verdictree_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"verdictree_{name}", text, labels, buckets=buckets, registry=self.registry)


class _Kind:
    """The metrics of verdicts of one release, policy and role: found once, since finding them takes longest."""

    def __init__(self, watch: Watch, key: tuple[str, str, str]) -> None:
        self._watch, self._key = watch, key
        self._of_category: dict[str, tuple[Histogram, Histogram]] = {}
        names = ("_unexplored", "_off_grammar", "_undecided", "_truncated", "_tokens")
        self._unexplored, self._off_grammar, self._undecided, self._truncated, self._tokens = (
            getattr(watch, name).labels(*key) for name in names
        )

    def count(self, verdict: Verdict) -> None:
        """Count one of them."""
        self._unexplored.observe(verdict.unexplored)
        self._off_grammar.observe(verdict.off_grammar)
        self._tokens.observe(verdict.num_tokens)
        if verdict.undecided:
            self._undecided.inc()
        if verdict.num_truncated_tokens:
            self._truncated.inc()
        blocked = "block" if verdict.unsafe_flagged else None
        self._score(UNSAFE, verdict.p_unsafe, verdict.p_unsafe_calibrated, blocked)
        for score in verdict.categories:
            self._score(score.code, score.marginal, score.calibrated, score.action)
        self._watch._actions.labels(*self._key, "any", verdict.action or "none").inc()

    def _score(self, code: str, raw: float, calibrated: float | None, action: str | None) -> None:
        metrics = self._of_category.get(code)
        if metrics is None:
            labels, watch = (*self._key, code), self._watch
            metrics = self._of_category[code] = watch._raw.labels(*labels), watch._calibrated.labels(*labels)
        metrics[0].observe(raw)
        if calibrated is not None:
            metrics[1].observe(calibrated)
        if action in ("review", "block"):
            self._watch._actions.labels(*self._key, code, action).inc()
