"""One call of either client: what is sent, what comes back, and which error a failure becomes."""

import re
import time
from inspect import signature

import grpc
import pytest
from fake_guard import Status, echo, last_text

import verdictree_client
from verdictree import Conversation, Message
from verdictree_client import (
    AsyncGuardClient,
    DeadlineExceeded,
    GuardClient,
    GuardError,
    InvalidRequest,
    NotAllowed,
    Overloaded,
    Retries,
    ServerFailure,
    ServerUnavailable,
)

Code = grpc.StatusCode
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_public_api():
    """A name that callers import vanishes or appears unnoticed."""
    assert sorted(verdictree_client.__all__) == [
        "AsyncGuardClient",
        "DeadlineExceeded",
        "GuardClient",
        "GuardError",
        "Health",
        "InvalidRequest",
        "InvalidSettings",
        "NotAllowed",
        "Overloaded",
        "Retries",
        "ServerFailure",
        "ServerUnavailable",
        "TLS",
    ]
    assert all(hasattr(verdictree_client, name) for name in verdictree_client.__all__)


@pytest.mark.parametrize(
    "method", ["__init__", "classify", "classify_many", "policies", "health", "wait_until_ready", "close"]
)
def test_both_clients_take_the_same_arguments(method):
    """An option is added to one client and forgotten in the other."""
    sync, aio = (signature(getattr(client, method)).parameters.values() for client in (GuardClient, AsyncGuardClient))
    assert [(p.name, p.kind, p.default) for p in sync] == [(p.name, p.kind, p.default) for p in aio]


def test_a_verdict_comes_back_typed(fake_guard, connect):
    """A number is lost or renamed between the server's JSON and the caller's Verdict."""
    verdict = connect(fake_guard()).classify("hello")
    assert (verdict.p_unsafe, verdict["S1"].marginal, verdict.greedy.text) == (0.25, 0.25, "hello")


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ("a", TURNS[:1]),
        (TURNS, TURNS),
        (tuple(TURNS), TURNS),
        ([Message("user", "a"), Message("assistant", "b")], TURNS),
        (Conversation((Message("user", "a"),)), TURNS[:1]),
    ],
)
def test_every_form_of_messages_is_the_same_request(fake_guard, connect, messages, sent):
    """One of the accepted forms drops a turn or changes a role on its way to the server."""
    guard = fake_guard()
    connect(guard).classify(messages, policy="strict", truncate="head")
    assert guard.bodies == [{"messages": sent, "policy": "strict", "truncate": "head"}]


def test_a_conversation_keeps_its_own_policy(fake_guard, connect):
    """A Conversation's policy is overwritten by the call's default of None, and the wrong taxonomy judges."""
    guard = fake_guard()
    connect(guard).classify(Conversation((Message("user", "a"),), policy="strict"))
    assert guard.bodies[0]["policy"] == "strict"


@pytest.mark.parametrize(
    "messages",
    [
        "",
        [],
        None,
        "lone surrogate \ud800",
        "x" * 600_000,
        {"role": "user", "content": "not in a list"},
        [{"role": "system", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": "x", "name": "y"}],
        [{"role": "user", "content": b"bytes would be judged as base64"}],
        [Message("user", b"bytes would be judged as base64")],
        [Message("system", "x")],
    ],
    ids=lambda messages: repr(messages)[:40],
)
def test_a_bad_request_is_refused_before_it_is_sent(fake_guard, connect, messages):
    """A request that cannot be judged reaches the server, or leaves as another library's error."""
    guard = fake_guard()
    with pytest.raises(InvalidRequest):
        connect(guard).classify(messages)
    assert guard.bodies == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status(Code.INVALID_ARGUMENT), InvalidRequest),
        (Status(Code.UNAVAILABLE), ServerUnavailable),
        (Status(Code.NOT_FOUND, "Request for unknown model: 'guard' is not found"), ServerUnavailable),
        (Status(Code.UNAVAILABLE, "in ensemble 'guard', Exceeds maximum queue size"), Overloaded),
        (Status(Code.UNAVAILABLE, "Request timeout expired"), Overloaded),
        (Status(Code.RESOURCE_EXHAUSTED), Overloaded),
        (Status(Code.DEADLINE_EXCEEDED), DeadlineExceeded),
        (Status(Code.INTERNAL), ServerFailure),
        (Status(Code.UNKNOWN), ServerFailure),
        (Status(Code.CANCELLED), ServerUnavailable),
        (Status(Code.UNIMPLEMENTED), ServerFailure),
        (Status(Code.PERMISSION_DENIED), NotAllowed),
        (Status(Code.UNAUTHENTICATED), NotAllowed),
    ],
    ids=lambda value: f"{value.code.name}-{value.message[:12]}" if isinstance(value, Status) else value.__name__,
)
def test_each_status_is_its_error(fake_guard, connect, status, error):
    """A full queue looks like a dead server, or a gRPC error escapes the tree and is taken for something else."""
    with pytest.raises(GuardError, match=re.escape(status.message)) as caught:
        connect(fake_guard(lambda body: status)).classify("x")
    assert type(caught.value) is error
    assert caught.value.__cause__.code() is status.code


@pytest.mark.parametrize("body", [b"", b"not JSON", b"{}", b'{"p_unsafe": null}', b"\xff\xfe", b"[]"])
def test_an_answer_that_is_no_verdict_is_a_failure(fake_triton, connect, body):
    """A damaged answer becomes a verdict with default numbers: the guard fails open."""
    with pytest.raises(ServerFailure, match="expected a verdict"):
        connect(fake_triton(lambda request: body)).classify("x")


def _rename(response):
    response.outputs[0].name = "other"


def _reshape(response):
    response.outputs[0].shape[:] = [2, 1]


def _cut_short(response):
    response.raw_output_contents[0] = response.raw_output_contents[0][:-1]


def _retype(response):
    response.outputs[0].datatype = "FP64"
    response.raw_output_contents[0] = bytes(8)


@pytest.mark.parametrize("damage", [_rename, _reshape, _cut_short, _retype])
def test_a_damaged_tensor_is_a_failure(fake_triton, connect, damage):
    """numpy's or struct's error for a malformed tensor escapes, and the caller's `except GuardError` misses it."""
    with pytest.raises(ServerFailure, match="expected a verdict"):
        connect(fake_triton(damage=damage)).classify("x")


def test_the_deadline_ends_a_slow_call(fake_guard, connect, gate):
    """A stuck guard blocks the caller's own request for ever."""
    guard = fake_guard(lambda body: gate.wait() and echo(body))
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        connect(guard, retries=Retries(limit=5)).classify("x", deadline=1.0)
    assert 0.99 <= time.monotonic() - start < 4.0
    assert len(guard.bodies) == 1


def test_the_deadline_covers_all_attempts_together(fake_guard, connect):
    """Each retry gets the whole deadline anew, and three attempts take three deadlines."""

    def slow_failure(body):
        time.sleep(0.5)
        return Status(Code.UNAVAILABLE)

    guard = fake_guard(slow_failure)
    start = time.monotonic()
    with pytest.raises((DeadlineExceeded, ServerUnavailable)):
        connect(guard, deadline=1.3, retries=Retries(limit=50, backoff=0.01)).classify("x")
    assert time.monotonic() - start < 2.6
    assert 1 <= len(guard.bodies) <= 3


def test_no_pause_outlasts_the_deadline(fake_guard, connect):
    """A call sleeps through its deadline before a retry that has no time left, and the real error is lost."""
    guard = fake_guard(lambda body: Status(Code.UNAVAILABLE))
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match="injected"):
        connect(guard, deadline=6.0, retries=Retries(backoff=30.0, max_backoff=30.0)).classify("x")
    assert time.monotonic() - start < 5.0


@pytest.mark.parametrize("deadline", [None, 0, -1.0, float("inf"), float("nan"), "10"])
def test_a_client_without_a_finite_deadline_is_refused(deadline):
    """`deadline=None` quietly means for ever."""
    with pytest.raises(ValueError, match="deadline in seconds"):
        GuardClient(deadline=deadline)


def test_a_call_that_failed_is_sent_again_and_succeeds(fake_guard, connect):
    """A server that restarts behind its load balancer fails requests that a retry would have saved."""
    failures = [Status(Code.UNAVAILABLE)] * 2
    guard = fake_guard(lambda body: failures.pop() if failures else echo(body))
    assert connect(guard, retries=Retries(backoff=0.01)).classify("x").greedy.text == "x"
    assert len(guard.bodies) == 3


@pytest.mark.parametrize(
    ("code", "when_overloaded", "num_attempts"),
    [
        (Code.UNAVAILABLE, False, 3),
        (Code.RESOURCE_EXHAUSTED, False, 1),
        (Code.RESOURCE_EXHAUSTED, True, 3),
        (Code.INVALID_ARGUMENT, True, 1),
        (Code.DEADLINE_EXCEEDED, True, 1),
        (Code.INTERNAL, True, 1),
    ],
)
def test_only_what_a_retry_can_help_is_retried(fake_guard, connect, code, when_overloaded, num_attempts):
    """Retries multiply the load on a full server, or repeat a request that can never succeed."""
    guard = fake_guard(lambda body: Status(code))
    with pytest.raises(GuardError):
        connect(guard, retries=Retries(limit=2, backoff=0.01, when_overloaded=when_overloaded)).classify("x")
    assert len(guard.bodies) == num_attempts


def test_pauses_grow_and_vary():
    """Clients that failed together come back together, or the pause never grows."""
    retries = Retries(backoff=0.1, max_backoff=1.0)
    pauses = [[retries.pause(n) for _ in range(50)] for n in range(6)]
    for n, some in enumerate(pauses):
        full = min(1.0, 0.1 * 2**n)
        assert full / 2 <= min(some) < max(some) <= full


def test_a_server_that_is_away_is_said_to_be_at_once(connect, unused_port):
    """A refused connection is waited on until the deadline."""
    start = time.monotonic()
    with pytest.raises(ServerUnavailable):
        connect(f"127.0.0.1:{unused_port}", retries=Retries()).classify("x")
    assert time.monotonic() - start < 5.0  # the deadline is 10


def test_a_server_that_comes_back_is_found_by_a_retry(fake_guard, connect, unused_port):
    """gRPC's own reconnect back-off (a second and more) outlasts every retry, so that none of them ever connects."""
    client = connect(f"127.0.0.1:{unused_port}", retries=Retries(limit=100, backoff=0.01, max_backoff=0.02))
    with pytest.raises(ServerUnavailable):
        client.classify("x", deadline=0.1)
    guard = fake_guard(address=f"127.0.0.1:{unused_port}")
    assert client.classify("x", deadline=0.6).greedy.text == "x"
    assert [last_text(body) for body in guard.bodies] == ["x"]
