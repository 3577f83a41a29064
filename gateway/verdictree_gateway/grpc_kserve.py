"""KServe v2 for the model `guard`, so that `tritonclient` and `perf_analyzer` work as they are.

A request is taken apart and built anew: one tensor of one text comes in, one goes on. What else a client may ask of a
server (other models, output parameters, shared memory, loading) is refused here.
"""

from __future__ import annotations

import struct
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from verdictree import wire
from verdictree.conversation import MAX_BYTES, Conversation, parse
from verdictree.errors import InvalidConversation
from verdictree_gateway import grpc_errors
from verdictree_gateway.front import Front
from verdictree_gateway.grpc_guard import caller_of, seconds_left
from verdictree_gateway.refused import Reason, Refused
from verdictree_gateway.triton import Triton, refusal

_PORT = "kserve"
_MODELS = (wire.MODEL, "guard_tokenizer", "guard_lm", "guard_marginals", "guard_router")
_SECONDS = 5.0
SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_METHODS = (
    "ModelInfer",
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
)
_EXPECTED = f"one input '{wire.REQUEST}' of type BYTES and shape [1, 1], without parameters"


class KServe:
    """Answers what is asked of the guard."""

    def __init__(self, front: Front, triton: Triton) -> None:
        self._front, self._triton = front, triton

    def handler(self) -> Any:
        """What to give a gRPC server. It knows these methods only; all others are UNIMPLEMENTED."""
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                getattr(self, name),
                getattr(service_pb2, f"{name}Request").FromString,
                getattr(service_pb2, f"{name}Response").SerializeToString,
            )
            for name in _METHODS
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """The verdict's JSON, as Triton answers it."""
        caller = await caller_of(self._front, context, _PORT)
        try:
            try:
                conversation, seconds = _conversation(request), seconds_left(self._front, context)
            except InvalidConversation as exc:
                refused = Refused(Reason.INVALID, str(exc))
                self._front.turned_away(_PORT, refused)
                raise refused from exc
            verdict, body = await self._front.verdict(caller, conversation, seconds)
        except Refused as exc:
            await grpc_errors.abort(context, exc, caller.request_id)
            raise
        response = service_pb2.ModelInferResponse(
            model_name=wire.MODEL, model_version=str(verdict.release), id=request.id
        )
        response.outputs.add(name=wire.VERDICT, datatype="BYTES").shape.extend([1, 1])
        response.raw_output_contents.append(struct.pack("<I", len(body)) + body)
        return response

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Whether the gateway lives."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Whether a verdict can be had."""
        return service_pb2.ServerReadyResponse(ready=await self._is_ready())

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """The same, of the guard; no other model is here."""
        return service_pb2.ModelReadyResponse(ready=request.name == wire.MODEL and await self._is_ready())

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """What this is; no extension of Triton's is passed on but statistics, which perf_analyzer wants."""
        return service_pb2.ServerMetadataResponse(
            name="verdictree", version="1", extensions=["model_configuration", "statistics"]
        )

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """As the server behind answers."""
        return await self._passed_on("ModelMetadata", service_pb2.ModelMetadataRequest, request, context)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """As the server behind answers."""
        return await self._passed_on("ModelConfig", service_pb2.ModelConfigRequest, request, context)

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """As the server behind answers; without a name, of the guard and its steps, whatever else it holds."""
        answer = await self._passed_on("ModelStatistics", service_pb2.ModelStatisticsRequest, request, context)
        ours = [one for one in answer.model_stats if one.name in _MODELS]
        return service_pb2.ModelStatisticsResponse(model_stats=ours)

    async def _is_ready(self) -> bool:
        return not self._front.is_draining and await self._triton.is_ready(_SECONDS)

    async def _passed_on(self, method: str, kind: Any, request: Any, context: Any) -> Any:
        caller = await caller_of(self._front, context, _PORT)
        try:
            if request.name not in ("", *_MODELS) or not (request.version or "0").isdecimal():
                raise Refused(Reason.NOT_FOUND, f"expected the model '{wire.MODEL}'; there is no other here")
            try:
                return await getattr(self._triton.stub, method)(
                    kind(name=request.name, version=request.version), timeout=_SECONDS
                )
            except grpc.aio.AioRpcError as exc:
                raise refusal(exc) from exc
        except Refused as exc:
            await grpc_errors.abort(context, exc, caller.request_id)
            raise


def _conversation(request: Any) -> Conversation:
    """The conversation in a request; InvalidConversation where there is anything else in it."""
    if request.model_name != wire.MODEL:
        raise InvalidConversation(f"expected the model '{wire.MODEL}', got another; there is no other here")
    if len(request.inputs) != 1 or len(request.outputs) > 1:
        raise InvalidConversation(f"expected {_EXPECTED}, got {len(request.inputs)} inputs")
    (tensor,) = request.inputs
    if (tensor.name, tensor.datatype, list(tensor.shape)) != (wire.REQUEST, "BYTES", [1, 1]) or tensor.parameters:
        raise InvalidConversation(f"expected {_EXPECTED}, got another tensor")
    for output in request.outputs:
        if output.name != wire.VERDICT or output.parameters:
            raise InvalidConversation(f"expected the output '{wire.VERDICT}' without parameters, got another")
    return parse(_body(request, tensor))


def _body(request: Any, tensor: Any) -> bytes:
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or tensor.contents.bytes_contents:
            raise InvalidConversation(f"expected {_EXPECTED}, got several contents")
        raw = request.raw_input_contents[0]
        if len(raw) < 4 or struct.unpack_from("<I", raw)[0] != len(raw) - 4:
            raise InvalidConversation("expected one text after its length in 4 bytes, got another length")
        return bytes(raw[4:])
    if len(tensor.contents.bytes_contents) != 1:
        raise InvalidConversation(f"expected {_EXPECTED}, got {len(tensor.contents.bytes_contents)} texts")
    return bytes(tensor.contents.bytes_contents[0])


MOST_BYTES = 2 * MAX_BYTES  # of a message on the wire: a conversation's limit is told in words, so it must get in
