"""The servers behind the gateway, as it asks them: one bounded text, built anew, and what may become of it."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from verdictree import verdict as verdicts
from verdictree import wire
from verdictree.conversation import Conversation
from verdictree.verdict import Verdict
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.settings import TritonTls

_MAX_BYTES = 16 << 20  # of an answer
_RETRY_SECONDS = 1.0
# Triton's words before a step's own.
_PREFIX = re.compile(r"^(\[request id: [^\]]*\] )?(in ensemble '\w+', )*")
_ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'


class Triton:
    """Servers of the guard at gRPC addresses, asked in turn; those that do not answer are left out by gRPC itself."""

    def __init__(self, addresses: Sequence[str], tls: TritonTls | None = None) -> None:
        target = addresses[0] if len(addresses) == 1 else f"ipv4:{','.join(addresses)}"
        options = [
            ("grpc.max_receive_message_length", _MAX_BYTES),
            ("grpc.service_config", _ROUND_ROBIN),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            options += [("grpc.ssl_target_name_override", tls.name)] if tls.name else []
            self._channel = grpc.aio.secure_channel(target, _credentials(tls), options=options)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Close the connections."""
        await self._channel.close()

    async def ask(self, conversation: Conversation, seconds: float, metadata: Any = None) -> tuple[Verdict, bytes]:
        """The verdict on a conversation, within `seconds`, and its JSON; Refused where there is none."""
        body = conversation.to_json()
        request = service_pb2.ModelInferRequest(model_name=wire.MODEL)
        tensor = request.inputs.add(name=wire.REQUEST, datatype="BYTES")
        tensor.shape.extend([1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(body)) + body)
        request.parameters["timeout"].int64_param = max(1, int(1e6 * wire.QUEUED_SHARE * seconds))
        try:
            response = await self.stub.ModelInfer(request, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError as exc:
            raise refusal(exc) from exc
        return _verdict(response)

    async def is_ready(self, seconds: float) -> bool:
        """Whether a server behind takes requests."""
        try:
            answer = await self.stub.ModelReady(
                service_pb2.ModelReadyRequest(name=wire.MODEL), timeout=seconds, wait_for_ready=True
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)


def _credentials(tls: TritonTls) -> grpc.ChannelCredentials:
    files = (tls.root, tls.key, tls.certificate)
    return grpc.ssl_channel_credentials(*(None if name is None else Path(name).read_bytes() for name in files))


def _verdict(response: Any) -> tuple[Verdict, bytes]:
    try:
        (content,) = response.raw_output_contents
        body = bytes(content[4:])
        verdict = verdicts.parse(body)
    except Exception as exc:  # whatever it is, it is no verdict
        raise Refused(Reason.FAILED, "the guard's answer is no verdict") from exc
    fault = verdict.fault()
    if fault is not None:
        raise Refused(Reason.FAILED, f"the guard's answer is no verdict: {fault}")
    return verdict, body


def refusal(exc: grpc.aio.AioRpcError) -> Refused:
    """What a failed call of Triton means to who asked the gateway. Nothing of a fault inside is told."""
    code, message = exc.code(), _PREFIX.sub("", exc.details() or "")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return Refused(Reason.INVALID, message)
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Refused(Reason.TOO_LATE, "there was no verdict within the deadline")
    if any(words in message.lower() for words in wire.QUEUE_FULL):
        return Refused(Reason.OVERLOADED, message, _RETRY_SECONDS)
    if code == grpc.StatusCode.UNAVAILABLE and message.startswith(wire.NOT_TAKING):
        return Refused(Reason.UNAVAILABLE, message, _RETRY_SECONDS)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND) or wire.DEAD_PROCESS in message:
        return Refused(Reason.UNAVAILABLE, "the guard is not there at the moment", _RETRY_SECONDS)
    return Refused(Reason.FAILED, "the guard failed on this request; the server's log says why")
