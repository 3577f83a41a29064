"""Whatever a stranger sends to a served guard: no crash, no hang, no traceback, and no answer that another is owed.

Each is sent to Triton's own port and to the gateway's. Left out are the few valid requests that crash Triton 2.51
(docs/operations.md lists them); tests/gateway sends those to the gateway.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tiny_guard
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from verdictree.conversation import parse
from verdictree.errors import InvalidConversation, NoVerdict
from verdictree.runtime.local_guard import LocalGuard
from verdictree_gateway.settings import Settings
from verdictree_gateway.workers import GatewayProcesses
from verdictree_serving import TritonServer

pytestmark = pytest.mark.server

INPUTS = {
    "guard": {"request": "BYTES"},
    "guard_tokenizer": {"request": "BYTES"},
    "guard_lm": {"input_ids": "INT64", "prefix_id": "INT32"},
    "guard_marginals": {
        "prefix_id": "INT32",
        "token_counts": "INT32",
        "label_logits": "FP32",
        "log_normalizer": "FP32",
        "top_logit": "FP32",
        "expansions": "INT32",
    },
}
LEAKED = re.compile(r"Traceback|site-packages|\.py\b|/home/|/usr/|/tmp/")
CANARY = b'{"messages":[{"role":"user","content":"canary"}]}'
SECONDS = 15.0


class Guard:
    """A served guard, the same guard in this process, and what both say of a canary."""

    def __init__(self, server: TritonServer, repository: Path, address: str, http_address: str) -> None:
        self.server, self.http_address = server, http_address
        self.offline = LocalGuard.load(repository, 1, threads=1)
        self.channel = grpc.insecure_channel(address)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.canary = self.ask(CANARY)

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse | grpc.RpcError:
        begin = time.monotonic()
        try:
            return self.stub.ModelInfer(request, timeout=SECONDS)
        except grpc.RpcError as error:
            assert time.monotonic() - begin < SECONDS, "hangs"
            return error

    def ask(self, body: bytes) -> bytes | grpc.RpcError:
        request = pb.ModelInferRequest(model_name="guard")
        request.inputs.add(name="request", datatype="BYTES").shape.extend([1, 1])
        request.raw_input_contents.append(struct.pack("<I", len(body)) + body)
        answer = self.infer(request)
        return answer if isinstance(answer, grpc.RpcError) else answer.raw_output_contents[0][4:]

    def check(self) -> None:
        """All processes live, and the canary's answer is what it was."""
        assert self.server.is_whole()
        assert self.ask(CANARY) == self.canary


@pytest.fixture(scope="module", params=["triton", "gateway"])
def guard(request, both_doors: dict[str, Guard]) -> Guard:
    return both_doors[request.param]


@pytest.fixture(scope="module")
def both_doors(tmp_path_factory) -> Iterator[dict[str, Guard]]:
    from verdictree_export.exporter import export_release

    repository = tmp_path_factory.mktemp("fuzz") / "models"
    checkpoint = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), **tiny_guard.FLUENT)
    export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], repository)
    settings = Settings(triton=(), grpc_port=0, http_port=0)
    with TritonServer(repository) as server, GatewayProcesses(settings) as gateway:
        gateway.start([server.grpc_address])
        addresses = {"triton": server.grpc_address, "gateway": gateway.grpc_address}
        found = {name: Guard(server, repository, address, gateway.http_address) for name, address in addresses.items()}
        yield found
        assert gateway.replace_dead() is None
        for one in found.values():
            one.channel.close()


TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(
            ["<|eot|>", "<|header|>", "User:", "\n\nAgent: ", "{content}", "{{", "\u202e", "\x00", "é", "🙂"]
        ),
        max_size=8,
    ).map("".join),
    st.sampled_from(["a" * 5000, "\n" * 3000 + "x", "e\u0301" * 500, "0" * 20000, "a b " * 30000]),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXTS}), min_size=1, max_size=5
)
OPTIONS = {
    "routing_key": TEXTS,
    "truncate": st.sampled_from(["head", "windows", None]),
    "policy": st.one_of(st.sampled_from(["tiny", None]), TEXTS),
}
BODIES = st.one_of(
    st.fixed_dictionaries({"messages": MESSAGES}, optional=OPTIONS).map(json.dumps),
    st.fixed_dictionaries({"messages": ANYTHING}, optional={**OPTIONS, "more": ANYTHING}).map(json.dumps),
    ANYTHING.map(json.dumps),
).map(str.encode)


def _inserted(body: bytes, place: int, more: bytes) -> bytes:
    return body[:place] + more + body[place:]


MUTATED = st.one_of(
    BODIES,
    st.binary(max_size=100),
    st.builds(_inserted, BODIES, st.integers(0, 300), st.binary(max_size=4)),
)


@given(MUTATED)
def test_the_server_says_what_the_guard_says(guard: Guard, body: bytes) -> None:
    """Another verdict than the guard's own, or an error with the server's insides in it, for some strange request."""
    served = guard.ask(body)
    try:
        expected = guard.offline.classify([parse(body)])[0]
    except (InvalidConversation, NoVerdict) as error:
        assert isinstance(served, grpc.RpcError), f"expected an error: {error}"
        wanted = grpc.StatusCode.INTERNAL if isinstance(error, NoVerdict) else grpc.StatusCode.INVALID_ARGUMENT
        assert served.code() == wanted and not LEAKED.search(served.details())
        return
    assert isinstance(served, bytes), served
    assert json.loads(served) == json.loads(expected.to_json())
    assert all(map(math.isfinite, _numbers(json.loads(served))))


@given(path=st.sampled_from(["moderations", "classify", "classify/batch"]), body=MUTATED)
def test_http_answers_or_says_why_not(both_doors: dict[str, Guard], path: str, body: bytes) -> None:
    """A failure of the gateway's own, where the caller has sent something strange."""
    guard = both_doors["gateway"]
    connection = http.client.HTTPConnection(guard.http_address, timeout=SECONDS)
    connection.request("POST", f"/v1/{path}", body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status in (200, 400, 413) and not LEAKED.search(content.decode()), content
    found = json.loads(content)
    assert ("error" in found) == (answer.status != 200)
    assert all(map(math.isfinite, _numbers(found)))
    guard.check()


SHAPES = st.sampled_from(
    [[1, 1], [1], [], [0], [1, 0], [0, 1], [2, 1], [1, 2], [1, 1, 1], [5, 1], [1, 3], [1, 64], [4, 1], [1, 2, 3]]
)
TYPES = st.sampled_from(["BYTES", "INT64", "INT32", "FP32", "FP16", "BOOL", "UINT8", "FP64", "JUNK", ""])
INTEGERS = st.sampled_from([0, 1, 2, -1, -5, 300, 10**6, 2**31 - 1, -(2**31)])
REALS = st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e38])


@st.composite
def requests(draw, model: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, id=draw(st.sampled_from(["", "a", "i" * 3000])))
    request.model_version = draw(st.sampled_from(["", "", "", "1", "7", "x"]))
    names = list(INPUTS[model])
    change = draw(st.sampled_from(["none"] * 5 + ["twice", "more", "fewer"]))
    names += {"twice": names[:1], "more": ["junk"]}.get(change, [])
    for name in names[: -1 if change == "fewer" else None]:
        kind = draw(st.one_of(st.just(INPUTS[model].get(name, "BYTES")), TYPES))
        shape = draw(SHAPES)
        request.inputs.add(name=name, datatype=kind).shape.extend(shape)
        request.raw_input_contents.append(draw(st.one_of(st.just(_content(draw, kind, shape)), st.binary(max_size=64))))
    return request


def _content(draw, kind: str, shape: list[int]) -> bytes:
    size = math.prod(shape)
    if kind == "BYTES":
        parts = draw(st.lists(st.sampled_from([CANARY, b"", b"x" * 50]), min_size=size, max_size=size))
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    if kind in ("INT64", "INT32"):
        values = draw(st.lists(INTEGERS, min_size=size, max_size=size))
        return np.array(values, np.int64).astype(kind.lower()).tobytes()
    if kind == "FP32":
        return np.array(draw(st.lists(REALS, min_size=size, max_size=size)), np.float32).tobytes()
    return bytes(4 * size)


@pytest.mark.parametrize("model", INPUTS)
@given(data=st.data())
def test_no_tensors_harm_anybody(guard: Guard, model: str, data: st.DataObject) -> None:
    """A request straight to a step ends its process, or is answered with another's verdict."""
    answer = guard.infer(data.draw(requests(model)))
    if isinstance(answer, grpc.RpcError):
        assert not LEAKED.search(answer.details() or "")
        assert answer.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) or (
            "unknown model" in answer.details() or "not ready" in answer.details() or "ready state" in answer.details()
        )
    elif model in ("guard", "guard_marginals"):
        for content in answer.raw_output_contents:
            assert all(map(math.isfinite, _numbers(json.loads(content[4:]))))
    guard.check()


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value
