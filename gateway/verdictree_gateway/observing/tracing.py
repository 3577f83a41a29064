"""OpenTelemetry's spans of requests, where an endpoint is given. Without one, nothing of it is imported.

    verdict              a request, from the check of its tenant's limits to the answer; child of the caller's span
    └─ triton            the call to the server behind, which gets this span as its parent (W3C `traceparent`)

Spans hold the gateway's and the release's own words and numbers; never a text, nor an error's words, which quote texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from verdictree.verdict import Verdict
from verdictree_gateway.observing.caller import Caller
from verdictree_gateway.refused import Reason, Refused

_SERVICE = "verdictree-gateway"
_EXPORT_SECONDS = 2.0  # so that a stop does not wait long for a collector that is gone
_FAULTS = (Reason.FAILED, Reason.OVERLOADED, Reason.UNAVAILABLE, Reason.TOO_LATE)
_PATH = "/v1/traces"


def is_installed() -> bool:
    """Whether the packages of the extra `tracing` are there."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


class Tracing:
    """Makes spans of requests, and sends them to a collector (OTLP over HTTP), in batches, beside the requests."""

    def __init__(self, endpoint: str | None, exporter: Any = None) -> None:
        """`endpoint` is a collector's URL, with or without its path; an `exporter` takes the spans in its place."""
        self._provider: Any = None
        if endpoint is not None or exporter is not None:
            self._provider = _provider(exporter or _exporter(str(endpoint)))
            self._tracer = self._provider.get_tracer(_SERVICE)

    @contextlib.contextmanager
    def request(self, caller: Caller) -> Iterator[RequestSpan]:
        """The span of a request, which ends with the block."""
        if self._provider is None:
            yield RequestSpan(None, None, caller.traceparent)
            return
        from opentelemetry.trace import SpanKind

        attributes = {"verdictree.port": caller.port}
        parent = _context(caller.traceparent)
        span = self._tracer.start_span("verdict", parent, SpanKind.SERVER, attributes)
        try:
            yield RequestSpan(self._tracer, span, caller.traceparent)
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left; takes seconds at most."""
        if self._provider is not None:
            self._provider.shutdown()


class RequestSpan:
    """One request's span, or what stands for it where there are none."""

    def __init__(self, tracer: Any, span: Any, traceparent: str | None) -> None:
        self._tracer, self._span, self._traceparent = tracer, span, traceparent

    @contextlib.contextmanager
    def triton(self) -> Iterator[str | None]:
        """The span of the call behind, which ends with the block; the `traceparent` for it."""
        if self._span is None:
            yield self._traceparent
            return
        from opentelemetry.trace import SpanKind, set_span_in_context

        span = self._tracer.start_span("triton", set_span_in_context(self._span), SpanKind.CLIENT)
        try:
            yield _traceparent(span)
        finally:
            span.end()

    def answered(self, verdict: Verdict) -> None:
        """Say what the verdict was."""
        if self._span is not None:
            said = {"release": verdict.release, "policy": verdict.policy, "role": verdict.role}
            said |= {"action": verdict.action or "none", "tokens": verdict.num_tokens, "outcome": "ok"}
            self._span.set_attributes({f"verdictree.{name}": value for name, value in said.items()})

    def refused(self, refused: Refused) -> None:
        """Say why there was none; an error where it is not the caller's doing."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_attribute("verdictree.outcome", refused.reason.name.lower())
            if refused.reason in _FAULTS:
                self._span.set_status(StatusCode.ERROR)


def _provider(exporter: Any) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": _SERVICE}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporter(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    base = endpoint.rstrip("/")
    return OTLPSpanExporter(base if base.endswith(_PATH) else base + _PATH, timeout=_EXPORT_SECONDS)


def _context(traceparent: str | None) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {}, Context())


def _traceparent(span: Any) -> str | None:
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent")
