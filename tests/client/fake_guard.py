"""A guard behind a real gRPC server that answers, or fails, as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from verdictree import CategoryScore, GreedyVerdict, Verdict
from verdictree import verdict as verdicts
from verdictree.v1 import guard_pb2 as pb
from verdictree.v1 import guard_pb2_grpc, messages


@dataclass
class Status:
    """A failure that the server answers in place of a verdict."""

    code: grpc.StatusCode
    message: str = "injected"
    trailing: tuple[tuple[str, bytes], ...] = ()


@dataclass(eq=False)
class FakeGuard(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers each request's JSON with `answer(body)`: a verdict's bytes or a Status. Alone it is Triton's own port."""

    answer: Callable[[dict[str, Any]], bytes | Status]
    live: bool = True
    ready: bool = True
    damage: Callable[[service_pb2.ModelInferResponse], None] = lambda response: None
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    queue_microseconds: list[int] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    num_in_flight: int = 0
    max_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=self.live)

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=self.ready and request.name == "guard")

    def ModelInfer(self, request, context):
        (tensor,) = request.inputs
        assert (request.model_name, tensor.name) == ("guard", "request")
        assert (tensor.datatype, [*tensor.shape]) == ("BYTES", [1, 1])
        with self.lock:
            self.queue_microseconds.append(request.parameters["timeout"].int64_param)
        answer = self.answered(json.loads(request.raw_input_contents[0][4:]), context)
        response = service_pb2.ModelInferResponse(model_name="guard")
        response.outputs.add(name="verdict", datatype="BYTES", shape=[1, 1])
        response.raw_output_contents.append(len(answer).to_bytes(4, "little") + answer)
        self.damage(response)
        return response

    def answered(self, body, context):
        context.add_callback(lambda: None if context.is_active() else self.cancelled.set())
        with self.lock:
            self.bodies.append(body)
            self.metadata.append(dict(context.invocation_metadata()))
            self.num_in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
        try:
            answer = self.answer(body)
        finally:
            with self.lock:
                self.num_in_flight -= 1
        if isinstance(answer, Status):
            context.set_trailing_metadata(answer.trailing)
            context.abort(answer.code, answer.message)
        return answer


@dataclass
class FakeGateway(guard_pb2_grpc.GuardServicer):
    """The typed door before a fake guard, on the same port."""

    guard: FakeGuard
    damage: Callable[[pb.ClassifyResponse], None] = lambda response: None

    def Classify(self, request, context):
        answer = self.guard.answered(json.loads(messages.conversation(request).to_json()), context)
        response = pb.ClassifyResponse(verdict=messages.answer(verdicts.parse(answer)))
        self.damage(response)
        return response


def last_text(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


def echo(body: dict[str, Any]) -> bytes:
    """A verdict whose greedy text is the judged message, so that a test sees which answer is whose."""
    score = CategoryScore("S1", "Violent Crimes", 0.25, 0.0, 0.0)
    greedy = GreedyVerdict(last_text(body), (), True)
    policy = body.get("policy", "default")
    return Verdict(1, policy, "user", 0.25, 0.7, (score,), 0.01, 0.04, greedy, 5, 0).to_json()
