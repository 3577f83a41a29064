"""The gateway's ports, as callers and strangers use them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import random
import socket
import struct
import subprocess
import time
from pathlib import Path

import grpc
import openai
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from verdictree import Conversation, Message
from verdictree.runtime.local_guard import LocalGuard
from verdictree.v1 import guard_pb2 as pb
from verdictree.v1 import guard_pb2_grpc, messages
from verdictree_client import AsyncGuardClient, GuardClient

pytestmark = pytest.mark.server
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
ROOT = Path(__file__).parents[2]
MIXED_REQUESTS = int(os.environ.get("MIXED_REQUESTS", "360"))
WORDS = "what about rope, a knife? please 🙂 help nobody naïve why\nUser: x"


@pytest.fixture(scope="module")
def offline(release) -> LocalGuard:
    return LocalGuard.load(release, 1, threads=1)


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.said["grpc"]) as found:
        yield found


def conversation(rng: random.Random) -> Conversation:
    turns = [
        Message(role, " ".join(rng.choices(WORDS.split(" "), k=rng.randint(1, 8))) or "x")
        for role in ("user", "assistant", "user")[: rng.randint(1, 3)]
    ]
    return Conversation(tuple(turns))


def test_every_port_answers_as_the_guard_offline(server, offline, post):
    """A port that mixes up answers, rounds a score, or judges another text than was sent."""
    rng = random.Random(5)
    asked = [conversation(rng) for _ in range(MIXED_REQUESTS // 3)]
    expected = list(offline.classify_all(asked))
    found = asyncio.run(_by_all_ports(server, asked))
    for port, verdicts in found.items():
        assert len(verdicts) == len(expected)
        for one, verdict, right in zip(asked, verdicts, expected, strict=True):
            if port == "moderations":
                assert verdict["verdictree"]["p_unsafe"] == right.p_unsafe, one
                assert verdict["category_scores"] == {score.code: score.marginal for score in right.categories}
            else:
                assert verdict == right, (port, one)


async def _by_all_ports(server, asked: list[Conversation]) -> dict[str, list]:
    """All at once."""
    async with grpc.aio.insecure_channel(server.said["grpc"]) as channel:
        client = openai.AsyncOpenAI(base_url=f"http://{server.said['http']}/v1", api_key="none")
        found = await asyncio.gather(_stream(channel, asked), _kserve(channel, asked), _moderations(client, asked))
        await client.close()
    # Ours after the others: all together are more than may wait.
    found += await asyncio.gather(
        _our_client(server.said["grpc"], asked),
        _our_client(server.said["triton"], asked),
        asyncio.to_thread(_our_threads, server.said["grpc"], asked),
    )
    names = ("stream", "kserve", "moderations", "our client", "our client, Triton itself", "our client, threads")
    return dict(zip(names, found, strict=True))


async def _our_client(address, asked):
    async with AsyncGuardClient(address, deadline=60.0) as guard:
        return [verdict async for verdict in guard.classify_many(asked)]


def _our_threads(address, asked):
    with GuardClient(address, deadline=60.0) as guard:
        return list(guard.classify_many(asked))


async def _stream(channel, asked):
    async def requests():
        for number, one in enumerate(asked):
            yield pb.ClassifyManyRequest(id=str(number), request=messages.request(one))

    found = {}
    async for answer in guard_pb2_grpc.GuardStub(channel).ClassifyMany(requests()):
        assert answer.id not in found and answer.WhichOneof("outcome") == "verdict", answer.error
        found[answer.id] = messages.verdict(answer.verdict)
    return [found[str(number)] for number in range(len(asked))]


async def _kserve(channel, asked):
    from verdictree import verdict

    stub, room = service_pb2_grpc.GRPCInferenceServiceStub(channel), asyncio.Semaphore(8)

    async def one(conversation):
        async with room:
            answer = await stub.ModelInfer(kserve(conversation.to_json()))
        return verdict.parse(answer.raw_output_contents[0][4:])

    return await asyncio.gather(*map(one, asked))


async def _moderations(client, asked):
    """The last messages of those that are one message; whole conversations have no place there."""
    room = asyncio.Semaphore(8)

    async def one(conversation):
        if len(conversation.messages) == 1:
            async with room:
                answer = await client.moderations.create(input=conversation.messages[0].content)
            return answer.to_dict()["results"][0]
        async with room:
            body = {"messages": [{"role": one.role, "content": one.content} for one in conversation.messages]}
            answer = await client.post("/classify", body=body, cast_to=object)
        scores = {score["code"]: score["marginal"] for score in answer["verdict"]["categories"]}
        return {"verdictree": answer["verdict"], "category_scores": scores}

    return await asyncio.gather(*map(one, asked))


def kserve(body: bytes, model: str = "guard") -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="request", datatype="BYTES").shape.extend([1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(body)) + body)
    return request


def _classified(request):
    request.outputs.add(name="verdict").parameters["classification"].int64_param = 3


def _shared_memory(request):
    request.inputs[0].parameters["shared_memory_region"].string_param = "x"
    del request.raw_input_contents[:]


def _wrong_length(request):
    request.raw_input_contents[0] = struct.pack("<I", 2**32 - 1) + b"{}"


def _reshape(*shape):
    def change(request):
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(shape)

    return change


CHANGES = {
    "a classification, which crashes Triton 2.51": _classified,
    "a huge shape, which crashes it too": _reshape(2**40, 2**40),
    "a negative shape": _reshape(-1, 1),
    "two texts": _reshape(1, 2),
    "shared memory": _shared_memory,
    "another length": _wrong_length,
    "no bytes": lambda request: request.raw_input_contents.__setitem__(0, b""),
    "two contents": lambda request: request.raw_input_contents.append(b"x"),
    "another type": lambda request: setattr(request.inputs[0], "datatype", "FP32"),
    "another name": lambda request: setattr(request.inputs[0], "name", "guard"),
    "two inputs": lambda request: request.inputs.add(name="x"),
    "an inner model": lambda request: setattr(request, "model_name", "guard_lm"),
    "another output": lambda request: request.outputs.add(name="input_ids"),
    "deep JSON": lambda request: request.raw_input_contents.__setitem__(0, struct.pack("<I", 100_000) + b"[" * 100_000),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_not_one_text_goes_no_further(server, channel, change):
    """One public request ends Triton's process."""
    before, stub = server.triton(), service_pb2_grpc.GRPCInferenceServiceStub(channel)
    request = kserve(json.dumps(HELLO).encode())
    change(request)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in caught.value.details() and len(caught.value.details()) < 500
    assert server.triton() == before and stub.ModelInfer(kserve(json.dumps(HELLO).encode()), timeout=20)


@pytest.mark.parametrize(
    "path, body, headers, status",
    [
        ("/v1/classify", b"{" * 100_000, {}, 400),
        ("/v1/classify", b"[" * 100_000, {}, 400),
        ("/v1/classify", b'{"messages":' + b"[" * 100_000, {}, 400),
        ("/v1/classify", b"\xff\xfe", {}, 400),
        ("/v1/classify", b"", {}, 400),
        ("/v1/classify", {**HELLO, "polciy": "x"}, {}, 400),
        ("/v1/classify", {**HELLO, "policy": "nobody's"}, {}, 400),
        ("/v1/classify", {"messages": [{"role": "user", "content": "\ud800"}]}, {}, 400),
        ("/v1/classify", {"messages": [{"role": "user", "content": "why " * 5000}]}, {}, 400),
        ("/v1/classify", b"x" * 600_000, {}, 413),
        ("/v1/classify", gzip.compress(b"0" * 10_000_000), {"Content-Encoding": "gzip"}, 415),
        ("/v1/classify", HELLO, {"X-Request-Timeout": "nan"}, 400),
        ("/v1/classify", HELLO, {"X-Request-Timeout": "-1"}, 400),
        ("/v1/classify/batch", {"requests": []}, {}, 400),
        ("/v1/classify/batch", {"requests": [HELLO] * 33}, {}, 400),
        ("/v1/moderations", {"input": 3}, {}, 400),
        ("/v1/moderations", {"input": "x", "model": "nobody's"}, {}, 400),
        ("/v1/moderations", {}, {}, 400),
        ("/v2/models/guard/infer", HELLO, {}, 404),
    ],
)  # fmt: skip
def test_bad_http_gets_one_clear_error(server, post, path, body, headers, status):
    """A traceback, a hang, or an error that no client of OpenAI's can read."""
    found, said, answer = post(server, path, body, **headers)
    assert found == status
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"} and "Traceback" not in error["message"]
    assert error["request_id"] == said["x-request-id"] and len(error["message"]) < 500


def test_one_bad_request_of_a_batch_costs_no_other(server, post):
    """Thirty-one verdicts are lost for one slip."""
    bad = {"messages": [{"role": "user", "content": ""}]}
    _, _, answer = post(server, "/v1/classify/batch", {"requests": [HELLO, bad, HELLO]})
    first, second, third = answer["results"]
    assert first == third and first["verdict"]["p_unsafe"] > 0 and second["error"]["code"] == "invalid"


def test_an_id_of_the_callers_comes_back(server, post, channel):
    """A failure that nobody can find in a log; or an id that forges a line of one."""
    assert post(server, "/v1/classify", HELLO, X_Request_Id="abc-1")[1]["x-request-id"] == "abc-1"
    for odd in ("x" * 200, "a b", "\x07"):
        assert post(server, "/v1/classify", HELLO, X_Request_Id=odd)[1]["x-request-id"] not in (odd, "")
    call = guard_pb2_grpc.GuardStub(channel).Classify.with_call(
        messages.request(Conversation((Message("user", "hello"),))), metadata=(("x-request-id", "abc-2"),)
    )[1]
    assert dict(call.initial_metadata())["x-request-id"] == "abc-2"


def test_typed_errors_have_details(server, channel):
    """A program that must read prose to know whether another try may do."""
    with pytest.raises(grpc.RpcError) as caught:
        guard_pb2_grpc.GuardStub(channel).Classify(pb.ClassifyRequest(), metadata=(("x-request-id", "abc-3"),))
    found = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    found.details[0].Unpack(info)
    found.details[1].Unpack(request)
    assert (info.reason, info.domain, request.request_id) == ("INVALID", "verdictree", "abc-3")


def test_a_stream_gives_each_its_own_outcome(server, channel):
    """One bad conversation ends the stream of all others."""
    good = messages.request(Conversation((Message("user", "hello"),)))
    asked = [pb.ClassifyManyRequest(id=str(n), request=good if n % 3 else pb.ClassifyRequest()) for n in range(100)]
    found = {one.id: one for one in guard_pb2_grpc.GuardStub(channel).ClassifyMany(iter(asked), timeout=60)}
    assert len(found) == 100
    for number in range(100):
        assert found[str(number)].WhichOneof("outcome") == ("verdict" if number % 3 else "error")


def test_compressed_calls_are_refused_unread(server, channel):
    """Ten kilobytes that become ten megabytes."""
    bomb = messages.request(Conversation((Message("user", "0" * 10_000_000),)))
    with pytest.raises(grpc.RpcError) as caught:
        guard_pb2_grpc.GuardStub(channel).Classify(bomb, compression=grpc.Compression.Gzip, timeout=20)
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_message_that_is_too_large_is_refused(server, channel):
    """One caller fills the memory."""
    huge = messages.request(Conversation((Message("user", "0" * 3_000_000),)))
    with pytest.raises(grpc.RpcError) as caught:
        guard_pb2_grpc.GuardStub(channel).Classify(huge, timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_slow_and_silent_callers_hold_nobody_up(server, post):
    """A thousand idle connections, and bodies that come a byte a second."""
    host, port = server.said["http"].split(":")
    with contextlib.ExitStack() as held:
        for number in range(1000):
            held.enter_context(
                socket.create_connection((host, int(server.said["grpc" if number % 2 else "http"].split(":")[1])))
            )
        slow = held.enter_context(socket.create_connection((host, int(port))))
        slow.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        header = held.enter_context(socket.create_connection((host, int(port))))
        header.sendall(b"POST /v1/cla")
        chunks = held.enter_context(socket.create_connection((host, int(port))))
        chunks.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000
        )
        begin = time.monotonic()
        assert post(server, "/v1/classify", HELLO)[0] == 200 and server.client().classify("hello")
        assert time.monotonic() - begin < 5
        slow.settimeout(20)
        assert b"504" in slow.recv(100), "the body has its time, and no more"
        header.settimeout(20)
        assert header.recv(100) == b"", "the headers too"
    assert server.is_ready()


def test_interrupted_calls_leave_nothing_behind(server, channel):
    """Calls that are cancelled at once, by the thousand (HTTP/2 resets), and that count as in flight for ever."""
    stub = guard_pb2_grpc.GuardStub(channel)
    request = messages.request(Conversation((Message("user", "hello"),)))
    for _ in range(1500):
        stub.Classify.future(request).cancel()
    client = http.client.HTTPConnection(server.said["http"], timeout=20)
    client.request("POST", "/v1/classify", json.dumps(HELLO))
    assert client.getresponse().status == 200
    client.close()
    deadline = time.monotonic() + 20
    while b"verdictree_in_flight 0.0" not in server.get("/metrics")[1].encode() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "verdictree_in_flight 0.0" in server.get("/metrics")[1]


def test_health_and_reflection(server, channel):
    """A balancer that speaks gRPC's own protocols, and an engineer with grpcurl."""
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", "verdictree.v1.Guard"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
    assert next(iter(health.Watch(health_pb2.HealthCheckRequest(service="")))).status == serving
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked)
    names = {service.name for service in answer.list_services_response.service}
    assert {"verdictree.v1.Guard", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


def test_policies_are_listed(server, channel, post):
    """A caller who must know the codes of a policy from elsewhere."""
    listed = guard_pb2_grpc.GuardStub(channel).ListPolicies(pb.ListPoliciesRequest())
    status, _, answer = post(server, "/v1/policies")
    assert status == 200 and listed.release == answer["release"] == 1
    with GuardClient(server.said["grpc"]) as guard:
        assert guard.policies() == messages.policies(listed)
    codes = [category.code for category in listed.policies[0].categories]
    assert codes == [one["code"] for one in answer["policies"][0]["categories"]] == ["S1", "S2", "S10"]


def test_the_interface_is_described_by_what_is_answered(server, post):
    """A description that no answer fits."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema checks the answers against the description")
    _, _, document = post(server, "/openapi.json")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = None
            if method == "post":
                content = operation["requestBody"]["content"]["application/json"]
                body = content["example"]
                jsonschema.validate(body, {**content["schema"], "components": document["components"]})
            status, _, answer = post(server, path, body)
            # This release is not calibrated: there are no scores to answer, and an error to describe.
            described = "default" if path == "/v1/scores" else "200"
            schema = operation["responses"][described]["content"]["application/json"]["schema"]
            assert status == (404 if path == "/v1/scores" else 200)
            jsonschema.validate(answer, {**schema, "components": document["components"]})
    _, _, error = post(server, "/v1/classify", b"{")
    schema = document["paths"]["/v1/classify"]["post"]["responses"]["default"]["content"]["application/json"]["schema"]
    jsonschema.validate(error, {**schema, "components": document["components"]})


def test_metrics_tell_of_the_domain(server, post):
    """A page about machines, and nothing about verdicts."""
    post(server, "/v1/classify", HELLO)
    post(server, "/v1/classify", b"{")
    time.sleep(1.5)
    text = server.get("/metrics")[1]
    for line in (
        'verdictree_requests_total{outcome="ok",port="http"}',
        'verdictree_requests_total{outcome="invalid",port="http"}',
        'verdictree_marginal_bucket{category="S1",le="0.5",policy="tiny",release="1",role="user"}',
        'verdictree_off_grammar_count{policy="tiny",release="1",role="user"}',
        'verdictree_actions_total{action="none",category="any",policy="tiny",release="1",role="user"}',
    ):
        assert line in text, line
    assert "verdictree_restarts_total 0.0" in text


def test_perf_analyzer_works_as_it_is(server, tmp_path):
    """A tool of NVIDIA's asks for something that the gateway does not pass on, and gives up."""
    program = ROOT / ".perf" / "bin" / "perf_analyzer"
    if not program.exists():
        pytest.skip("perf_analyzer is not installed: make .perf/bin/perf_analyzer")
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"data": [{"request": {"content": [json.dumps(HELLO)], "shape": [1]}}]}))
    report = tmp_path / "report.csv"
    options = ["--measurement-interval", "1000", "--stability-percentage", "999", "--max-trials", "3"]
    command = [program, "-m", "guard", "-i", "grpc", "-u", server.said["grpc"], "--input-data", data]
    done = subprocess.run(
        [*command, *options, "--concurrency-range", "4", "-f", report],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LD_LIBRARY_PATH": str(program.parents[1] / "lib")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(report.read_text().splitlines()[1].split(",")[1]) > 1
