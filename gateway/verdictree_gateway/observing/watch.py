"""What the gateway counts and writes down of each request: metrics of the domain, a log line; never a text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from verdictree.conversation import Conversation
from verdictree.verdict import Verdict
from verdictree.verdict_metrics import METRICS, Metric, observations
from verdictree_gateway.observing.audit import LOST, WRITTEN, Audit
from verdictree_gateway.observing.calibrated_on import CalibratedOn
from verdictree_gateway.observing.caller import Caller
from verdictree_gateway.observing.drift import Drift
from verdictree_gateway.refused import Refused
from verdictree_gateway.settings import Settings

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
log = logging.getLogger("verdictree.requests")


class Watch:
    """The metrics of one gateway process. Labels are the gateway's and the release's own words, never a caller's."""

    def __init__(self, settings: Settings, process: str = "0") -> None:
        self._log_requests = settings.log_requests
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests, by port and outcome.", "port", "outcome")
        self._seconds = self._histogram("request_seconds", "Until the answer.", _SECONDS, "port")
        self._behind = self._histogram("behind_seconds", "Until Triton's answer.", _SECONDS)
        self._of_verdicts = {metric.name: self._metric(metric) for metric in METRICS}
        self._adding: dict[tuple[str, tuple[str, ...]], Callable[[float], None]] = {}
        self.in_flight = Gauge("verdictree_in_flight", "Requests that wait for verdicts.", registry=self.registry)
        limit = Gauge("verdictree_in_flight_limit", "Requests that are let in at once.", registry=self.registry)
        limit.set(settings.max_in_flight)
        repository = Path(settings.repository) if settings.repository else None
        self._drift = Drift(process, calibrated=CalibratedOn(repository))
        self.registry.register(self._drift)
        lines = self._counter("audit_lines", "Lines of the audit log, by outcome.", "outcome")
        outcomes = {outcome: lines.labels(outcome) for outcome in (WRITTEN, LOST)}
        self._audit = Audit(settings, process, lambda outcome: outcomes[outcome].inc())

    def answered(self, caller: Caller, conversation: Conversation, verdict: Verdict, seconds: float) -> None:
        """Count a verdict."""
        self._requests.labels(caller.port, "ok").inc()
        self._seconds.labels(caller.port).observe(seconds)
        for metric, labels, value in observations(verdict):
            add = self._adding.get((metric.name, labels))
            if add is None:  # found once, since finding it takes longest
                child = self._of_verdicts[metric.name].labels(*labels)
                add = child.observe if isinstance(child, Histogram) else child.inc
                self._adding[metric.name, labels] = add
            add(value)
        if verdict.exit_layer is None:  # what left early has limits in place of scores
            self._drift.seen(verdict)
        self._audit.verdict(caller, conversation, verdict)
        if self._log_requests:
            said = {"release": verdict.release, "policy": verdict.policy, "role": verdict.role}
            self._line(caller, "ok", seconds, {**said, "flagged": verdict.flagged, "tokens": verdict.num_tokens})

    def behind(self, seconds: float) -> None:
        """Count how long Triton took for a verdict."""
        self._behind.observe(seconds)

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

    def _metric(self, metric: Metric) -> Counter | Histogram:
        if metric.buckets:
            return self._histogram(metric.name, metric.text, metric.buckets, *metric.labels)
        return self._counter(metric.name, metric.text, *metric.labels)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"verdictree_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"verdictree_{name}", text, labels, buckets=buckets, registry=self.registry)
