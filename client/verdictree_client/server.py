"""The server as a client asks it: typed where a gateway listens, by KServe v2 where Triton itself does.

    Typed    verdictree.v1.Guard: a gateway
    KServe   a conversation's JSON in one tensor: Triton, and a gateway too

A client asks typed first. Triton knows no such service and says UNIMPLEMENTED, whereupon the client speaks KServe v2
from then on: every server of a guard understands that, so a wrong guess costs one round trip and never a verdict.

Both work on a channel of either kind. On one of grpc.aio what a method returns is awaited.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import grpc
import msgspec
from tritonclient.grpc import service_pb2, service_pb2_grpc

from verdictree import verdict as verdicts
from verdictree import wire
from verdictree.conversation import Conversation
from verdictree.v1 import guard_pb2, guard_pb2_grpc, messages
from verdictree.verdict import Verdict
from verdictree_client.errors import ServerFailure

Metadata = Sequence[tuple[str, str]] | None


class Typed:
    """Asks by `verdictree.v1.Guard`."""

    def __init__(self, channel: Any) -> None:
        self.stub = guard_pb2_grpc.GuardStub(channel)

    def ask(self, conversation: Conversation, seconds: float, metadata: Metadata) -> Any:
        """Send a conversation; how long it may wait in queues the gateway tells from the call's own deadline."""
        return self.stub.Classify(messages.request(conversation), timeout=seconds, metadata=metadata)

    def verdict(self, answer: guard_pb2.ClassifyResponse) -> Verdict:
        """The verdict in an answer; ServerFailure where there is none."""
        try:
            # What a message leaves out reads as 0: without these there is no verdict, and none that is safe.
            if not answer.HasField("verdict") or not answer.verdict.HasField("greedy"):
                raise ValueError("it has no verdict")
            return _checked(messages.verdict(answer.verdict))
        except (ValueError, KeyError) as exc:
            raise _no_verdict(exc) from exc


class KServe:
    """Asks by KServe v2's `ModelInfer` of the model `guard`."""

    def __init__(self, channel: Any) -> None:
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def ask(self, conversation: Conversation, seconds: float, metadata: Metadata) -> Any:
        """Send a conversation, and say how long it may wait in queues: nothing is computed whose caller has gone."""
        body = conversation.to_json()
        request = service_pb2.ModelInferRequest(model_name=wire.MODEL)
        request.inputs.add(name=wire.REQUEST, datatype="BYTES").shape.extend([1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(body)) + body)
        # In microseconds; 0 would be no limit.
        request.parameters["timeout"].int64_param = max(1, int(1e6 * wire.QUEUED_SHARE * seconds))
        return self.stub.ModelInfer(request, timeout=seconds, metadata=metadata)

    def verdict(self, answer: service_pb2.ModelInferResponse) -> Verdict:
        """The verdict in an answer; ServerFailure where there is none."""
        return kserve_verdict(answer)


class Server:
    """Both ways to ask on one channel, and that which the server is known to understand."""

    def __init__(self, channel: Any, metadata: Metadata = None) -> None:
        self.typed, self._kserve = Typed(channel), KServe(channel)
        self.way: Typed | KServe = self.typed
        self.metadata = metadata

    def learns(self, exc: grpc.RpcError, asked: Typed | KServe) -> bool:
        """Whether a call failed since the server is Triton itself: then it is asked by KServe v2 from now on."""
        if asked is self.typed and exc.code() is grpc.StatusCode.UNIMPLEMENTED:
            self.way = self._kserve
            return True
        return False

    def live(self, seconds: float) -> Any:
        """Ask whether the server lives."""
        return self._kserve.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=seconds, metadata=self.metadata)

    def ready(self, seconds: float) -> Any:
        """Ask whether the guard takes requests."""
        request = service_pb2.ModelReadyRequest(name=wire.MODEL)
        return self._kserve.stub.ModelReady(request, timeout=seconds, metadata=self.metadata)


def kserve_verdict(answer: service_pb2.ModelInferResponse) -> Verdict:
    """The verdict in a KServe v2 answer; ServerFailure where it holds none, or numbers that are no probabilities."""
    try:
        (tensor,), (content,) = answer.outputs, answer.raw_output_contents
        if (tensor.name, tensor.datatype, list(tensor.shape)) != (wire.VERDICT, "BYTES", [1, 1]):
            raise ValueError(f"a tensor {tensor.name!r} of {tensor.datatype} {list(tensor.shape)}")
        if struct.unpack_from("<I", content)[0] != len(content) - 4:
            raise ValueError("its length is not what it says")
        return _checked(verdicts.parse(content[4:]))
    except (msgspec.DecodeError, ValueError, struct.error) as exc:
        raise _no_verdict(exc) from exc


def _checked(verdict: Verdict) -> Verdict:
    if fault := verdict.fault():
        raise ValueError(fault)
    return verdict


def _no_verdict(exc: Exception) -> ServerFailure:
    return ServerFailure(
        f"expected a verdict, got something else ({exc}); check that {wire.MODEL!r} is a Verdictree guard of this "
        "client's version"
    )
