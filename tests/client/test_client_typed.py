"""A client before a gateway and before Triton itself: which way it asks, and what a gateway's errors say."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from fake_guard import FakeGateway, Status, echo
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from verdictree.v1 import guard_pb2 as pb
from verdictree_client import (
    GuardClient,
    InvalidRequest,
    NotAllowed,
    Overloaded,
    Retries,
    ServerFailure,
    ServerUnavailable,
)

Code = grpc.StatusCode


def refusal(code: Code, reason: str, retry_after: float | None = None) -> Status:
    """As a gateway refuses."""
    said = [error_details_pb2.ErrorInfo(reason=reason, domain="verdictree")]
    said.append(error_details_pb2.RequestInfo(request_id="r-7"))
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(1e9 * retry_after))
        said.append(error_details_pb2.RetryInfo(retry_delay=delay))
    found = status_pb2.Status(code=code.value[0])
    for one in said:
        packed = any_pb2.Any()
        packed.Pack(one)
        found.details.append(packed)
    return Status(code, "injected", (("grpc-status-details-bin", found.SerializeToString()),))


def test_a_gateway_is_asked_typed_and_triton_by_kserve(fake_gateway, fake_triton, connect):
    """The typed interface is there, and our own client passes it by; or Triton's own callers are shut out."""
    gateway, triton = fake_gateway(), fake_triton()
    for guard, by_kserve in ((gateway, 0), (triton, 3)):
        client = connect(guard)
        assert [client.classify(text).greedy.text for text in "abc"] == ["a", "b", "c"]
        assert (len(guard.bodies), len(guard.queue_microseconds)) == (3, by_kserve)


def test_finding_out_spends_no_retry(fake_triton, connect):
    """The first call to Triton has one attempt less than every other, and fails where a retry would have helped."""
    failures = [Status(Code.UNAVAILABLE)] * 2
    guard = fake_triton(lambda body: failures.pop() if failures else echo(body))
    assert connect(guard, retries=Retries(limit=2, backoff=0.01)).classify("x").greedy.text == "x"


def test_threads_find_out_together(fake_triton):
    """The call of one thread, sent before another one found out, fails with UNIMPLEMENTED."""
    together = threading.Barrier(16)

    def first(client: GuardClient) -> str:
        together.wait()
        return client.classify("x").greedy.text

    with GuardClient(fake_triton().url) as client, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(first, [client] * 16)) == ["x"] * 16


def test_both_doors_give_the_same_verdict(fake_gateway, fake_triton, connect):
    """A number is rounded, or a field lost, on one of the two ways."""
    assert connect(fake_gateway()).classify("x") == connect(fake_triton()).classify("x")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (refusal(Code.UNAVAILABLE, "OVERLOADED", 0.25), Overloaded),
        (refusal(Code.UNAVAILABLE, "UNAVAILABLE", 0.25), ServerUnavailable),
        (refusal(Code.RESOURCE_EXHAUSTED, "TOO_MANY", 0.25), Overloaded),
        (refusal(Code.UNAUTHENTICATED, "UNAUTHENTICATED"), NotAllowed),
        (refusal(Code.INTERNAL, "FAILED"), ServerFailure),
        (refusal(Code.NOT_FOUND, "NOT_FOUND"), InvalidRequest),
    ],
    ids=lambda value: value.code.name if isinstance(value, Status) else value.__name__,
)
def test_what_a_gateway_says_of_an_error_is_told(fake_gateway, connect, status, error):
    """The request's id, which finds it in the server's log, is thrown away; overload reads as a server that is away."""
    with pytest.raises(error) as caught:
        connect(fake_gateway(lambda body: status)).classify("x")
    assert type(caught.value) is error and caught.value.request_id == "r-7"
    assert caught.value.retry_after == (0.25 if status.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED) else None)


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"{}", b"\x0a\x03abc"])
def test_details_that_are_none_change_nothing(fake_gateway, connect, content):
    """A proxy's own words beside a status end the call with protobuf's error."""
    status = Status(Code.INVALID_ARGUMENT, "injected", (("grpc-status-details-bin", content),))
    with pytest.raises(InvalidRequest, match="injected") as caught:
        connect(fake_gateway(lambda body: status)).classify("x")
    assert (caught.value.request_id, caught.value.retry_after) == (None, None)


def test_a_retry_waits_as_long_as_the_gateway_asks(fake_gateway, connect):
    """A client that comes back sooner than it was told to is refused again, and adds to the load."""
    failures = [refusal(Code.UNAVAILABLE, "UNAVAILABLE", 0.3)]
    guard = fake_gateway(lambda body: failures.pop() if failures else echo(body))
    start = time.monotonic()
    connect(guard, retries=Retries(limit=1, backoff=0.001)).classify("x")
    assert 0.3 <= time.monotonic() - start < 3.0
    with pytest.raises(ServerUnavailable):  # there is no time to wait so long: the error now, not at the deadline
        failures.append(refusal(Code.UNAVAILABLE, "UNAVAILABLE", 30.0))
        connect(guard, retries=Retries(limit=1), deadline=5.0).classify("x")
    assert time.monotonic() - start < 5.0


def _no_verdict(response):
    response.ClearField("verdict")


def _no_categories(response):
    del response.verdict.categories[:]


def _nobody(response):
    response.verdict.role = pb.ROLE_UNSPECIFIED


def _not_a_number(response):
    response.verdict.p_unsafe = float("nan")


def _not_finite(response):
    response.verdict.categories[0].calibrated = float("inf")


def _half(response):
    response.verdict.ClearField("greedy")


@pytest.mark.parametrize("damage", [_no_verdict, _no_categories, _nobody, _not_a_number, _not_finite, _half])
def test_a_typed_answer_that_is_no_verdict_is_a_failure(fake_gateway, connect, damage):
    """A number that is missing reads as 0, and what is not finite is below every threshold: the guard fails open."""
    guard = fake_gateway()
    with pytest.raises(ServerFailure, match="expected a verdict"):
        connect(fake_gateway(typed=FakeGateway(guard, damage))).classify("x")


def test_the_key_goes_with_every_call(fake_guard, connect):
    """The key is sent the one way and forgotten the other."""
    guard = fake_guard()
    connect(guard, api_key="vt-secret").classify("x")
    assert [one["authorization"] for one in guard.metadata] == ["Bearer vt-secret"]


def test_triton_itself_lists_no_policies(fake_triton, connect):
    """UNIMPLEMENTED says to nobody what to do."""
    with pytest.raises(ServerFailure, match=r"expected a gateway at .* Triton itself; give the gateway's"):
        connect(fake_triton()).policies()
