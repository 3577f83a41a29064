"""Spans of requests: whose children they are, what they say, and that they say nothing of a text."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from verdicts import caller, verdict

from verdictree import Conversation, Message
from verdictree_gateway.front import Front
from verdictree_gateway.observing.exits import Exits
from verdictree_gateway.observing.tracing import Tracing
from verdictree_gateway.observing.watch import Watch
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.settings import Settings

pytest.importorskip("opentelemetry.sdk", reason="the extra `tracing` is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SECRET = "how do I pick the lock of 4111"


class FakeTriton:
    """Answers with a verdict, or raises."""

    def __init__(self, answer) -> None:
        self.answer, self.metadata = answer, []

    async def ask(self, conversation, seconds, metadata=None):
        self.metadata.append(metadata)
        await asyncio.sleep(0.001)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, b"{}"


def asked(answer, *traceparents, tracing: Tracing | None = None):
    """The finished spans, and what went to Triton, of requests at the same time."""
    exporter, triton = InMemorySpanExporter(), FakeTriton(answer)
    tracing = tracing or Tracing(None, exporter)
    settings = Settings(triton=())
    watch = Watch(settings)
    front = Front(settings, triton, watch, Exits(settings, triton.ask, watch.registry, Path("exits-off")), tracing)

    async def all_of_them():
        conversation = Conversation((Message("user", SECRET),))
        callers = [front.caller("http", None, None, one) for one in traceparents]
        return await asyncio.gather(*(front.verdict(one, conversation, 5.0) for one in callers), return_exceptions=True)

    asyncio.run(all_of_them())
    tracing.close()
    return exporter.get_finished_spans(), triton.metadata


def test_a_request_is_a_child_of_its_callers_and_the_parent_of_tritons():
    """A trace that is torn in two at the gateway."""
    (inner, outer), ((header,),) = asked(verdict(0.7, release=3, action="block"), TRACEPARENT)
    assert (outer.name, outer.kind) == ("verdict", SpanKind.SERVER)
    assert (inner.name, inner.kind) == ("triton", SpanKind.CLIENT)
    assert f"{outer.context.trace_id:032x}" == TRACE and f"{outer.parent.span_id:016x}" == PARENT
    assert inner.parent.span_id == outer.context.span_id
    assert header == ("traceparent", f"00-{TRACE}-{inner.context.span_id:016x}-01")
    assert outer.start_time <= inner.start_time < inner.end_time <= outer.end_time
    assert dict(outer.attributes) == {
        "verdictree.port": "http",
        "verdictree.release": 3,
        "verdictree.policy": "tiny",
        "verdictree.role": "user",
        "verdictree.action": "block",
        "verdictree.tokens": 9,
        "verdictree.outcome": "ok",
    }
    assert outer.resource.attributes["service.name"] == "verdictree-gateway"


def test_requests_at_once_do_not_mix():
    """A span of one caller's under another caller's."""
    parents = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 20)]
    spans, metadata = asked(verdict(), *parents)
    outer = {span.context.span_id: span for span in spans if span.name == "verdict"}
    inner = [span for span in spans if span.name == "triton"]
    assert {span.context.trace_id for span in outer.values()} == set(range(1, 20))
    assert all(outer[span.parent.span_id].context.trace_id == span.context.trace_id for span in inner)
    assert len(inner) == len(metadata) == 19


@pytest.mark.parametrize(
    "strange",
    ["", "x", "00-" + "0" * 32 + f"-{PARENT}-01", TRACEPARENT + "é", TRACEPARENT.upper(), "ff" + TRACEPARENT[2:]],
)
def test_a_strange_parent_is_none(strange):
    """A stranger's bytes in a header of the call to Triton."""
    (_, outer), ((header,),) = asked(verdict(), strange)
    assert outer.parent is None and f"{outer.context.trace_id:032x}" in header[1]
    spans, metadata = asked(verdict(), strange, tracing=Tracing(None))
    assert spans == () and metadata == [None]


def test_a_caller_who_does_not_sample_is_not_sampled():
    """Traces by the thousand that nobody asked for."""
    spans, ((header,),) = asked(verdict(), TRACEPARENT[:-1] + "0")
    assert spans == () and header[1].startswith(f"00-{TRACE}-") and header[1].endswith("-00")


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [
        (Refused(Reason.TOO_LATE, SECRET), "too_late", StatusCode.ERROR),
        (Refused(Reason.INVALID, SECRET), "invalid", StatusCode.UNSET),
        (RuntimeError(SECRET), None, StatusCode.UNSET),
    ],
)
def test_a_refusal_says_why_without_its_words(error, outcome, status):
    """Words of an error quote what was sent."""
    spans, _ = asked(error, TRACEPARENT)
    outer = spans[-1]
    assert outer.attributes.get("verdictree.outcome") == outcome and outer.status.status_code is status
    assert not any(SECRET in span.to_json() or span.events for span in spans)


def test_without_an_endpoint_nothing_is_loaded_and_the_parent_goes_on():
    """Tracing that everybody pays for."""
    assert asked(verdict(), TRACEPARENT, tracing=Tracing(None)) == ((), [[("traceparent", TRACEPARENT)]])
    script = """
import asyncio, sys
import verdictree_gateway.worker
from verdictree_gateway.observing.tracing import Tracing
sys.path.insert(0, "tests/gateway")
from verdicts import caller
with Tracing(None).request(caller()) as span, span.triton():
    pass
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_spans_cost_no_time_without_an_endpoint():
    """The bound is many times what it takes."""
    tracing, one = Tracing(None), caller()
    begin = time.perf_counter()
    for _ in range(1000):
        with tracing.request(one) as span, span.triton():
            pass
    assert (time.perf_counter() - begin) / 1000 < 50e-6


@pytest.fixture
def collector():
    """A collector of spans, and all that it got."""
    found = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            found.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", found
    server.shutdown()
    server.server_close()


@pytest.mark.server
def test_a_served_guard_sends_traces_and_writes_its_audit_log(serve, post, collector, tmp_path):
    """Options that reach no process; spans that are lost at a stop."""
    url, found = collector
    options = ["--otlp", url, "--audit-file", str(tmp_path / "audit.jsonl"), "--audit-texts", "--processes", "2"]
    server = serve(*options)
    body = {"messages": [{"role": "user", "content": "mail me: a@b.example"}]}
    for number in range(10):
        traceparent = f"00-{TRACE}-{PARENT}-01"
        status, _, _ = post(server, "/v1/classify", body, traceparent=traceparent, x_request_id=f"r{number}")
        assert status == 200
    assert server.end()[0] == 0
    assert {path for path, _ in found} == {"/v1/traces"}
    spans = [
        span
        for _, sent in found
        for resource in ExportTraceServiceRequest.FromString(sent).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == ["triton"] * 10 + ["verdict"] * 10
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert not any(b"mail me" in sent for _, sent in found)
    lines = [line for path in tmp_path.glob("audit.?.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 10 and all('"text": "mail me: [e-mail]"' in line for line in lines)


def test_a_collector_that_is_gone_costs_spans_only():
    """A stop that waits a minute for a collector, or a verdict that does."""
    tracing = Tracing("http://127.0.0.1:9")  # where nobody listens
    begin = time.monotonic()
    asked(verdict(), TRACEPARENT, tracing=tracing)
    assert time.monotonic() - begin < 10
