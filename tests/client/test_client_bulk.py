"""`classify_many` of either client: order, laziness, the bound on requests in flight, errors, and stopping early."""

import asyncio
import itertools
import threading
import time
from contextlib import aclosing

import grpc
import pytest
from fake_guard import Status, echo, last_text

from verdictree_client import AsyncGuardClient, GuardClient, InvalidRequest, ServerFailure


def texts(verdicts):
    return [verdict.greedy.text for verdict in verdicts]


def test_verdicts_keep_the_order_of_the_items(fake_guard, connect):
    """A fast verdict overtakes a slow one and is taken for its neighbour's."""

    def slow_for_even(body):
        time.sleep(0.03 if int(last_text(body)) % 2 == 0 else 0)
        return echo(body)

    names = [str(n) for n in range(20)]
    assert texts(connect(fake_guard(slow_for_even)).bulk(names, concurrency=4)) == names


def test_concurrency_bounds_the_requests_in_flight_and_is_used(fake_guard, connect):
    """A bulk job floods the server, or sends one request at a time whatever it was told."""

    def slow(body):
        time.sleep(0.02)
        return echo(body)

    guard = fake_guard(slow)
    connect(guard).bulk((str(n) for n in range(30)), concurrency=3)
    assert (guard.max_in_flight, len(guard.bodies)) == (3, 30)


def test_an_endless_stream_is_read_only_as_far_as_needed(fake_guard, connect):
    """The items are collected into a list before the first request: an endless stream never answers."""
    num_read = 0

    def endless():
        nonlocal num_read
        for n in itertools.count():
            num_read += 1
            yield str(n)

    assert texts(connect(fake_guard()).bulk(endless(), take=5, concurrency=4)) == ["0", "1", "2", "3", "4"]
    assert num_read <= 5 + 4


def test_nothing_is_read_before_the_first_verdict_is_asked_for(fake_guard):
    """Making the generator consumes the caller's source, although nobody wants a verdict yet."""
    read = []
    with GuardClient(fake_guard().url) as client:
        client.classify_many(read.append(n) or "x" for n in range(3))
    assert read == []


@pytest.mark.parametrize("num_items", [0, 1, 3, 8, 9])
def test_every_item_has_one_verdict(fake_guard, connect, num_items):
    """The items that are still in flight when the source ends are dropped."""
    assert len(connect(fake_guard()).bulk(["x"] * num_items)) == num_items


def fail_on_bad(body):
    return Status(grpc.StatusCode.INTERNAL) if last_text(body) == "bad" else echo(body)


def test_a_failing_item_raises_in_its_place(fake_guard, connect):
    """An error is swallowed, and the verdicts after it are paired with the wrong items."""
    client = connect(fake_guard(fail_on_bad))
    assert texts(client.bulk(["a", "b", "bad", "c"], take=2)) == ["a", "b"]
    with pytest.raises(ServerFailure, match="injected"):
        client.bulk(["a", "b", "bad", "c"])


def test_return_errors_keeps_every_other_verdict(fake_guard, connect):
    """One bad item of a million ends the job, or the error is lost and the results shift by one."""
    outcomes = connect(fake_guard(fail_on_bad)).bulk(["a", "bad", "", "b"], return_errors=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Verdict", "ServerFailure", "InvalidRequest", "Verdict"]
    assert texts([outcomes[0], outcomes[3]]) == ["a", "b"]


def test_the_callers_own_error_is_not_an_outcome(fake_guard, connect):
    """An exception from the caller's source hangs the workers or is yielded as if a request had failed."""

    def broken():
        yield "a"
        raise KeyError("the caller's")

    with pytest.raises(KeyError, match="the caller's"):
        connect(fake_guard()).bulk(broken(), return_errors=True)


def test_options_hold_for_every_item(fake_guard, connect):
    """The policy or the deadline of a bulk job never reaches its requests."""
    guard = fake_guard(lambda body: time.sleep(6.0) or echo(body) if last_text(body) == "slow" else echo(body))
    outcomes = connect(guard).bulk(["a", "slow"], policy="strict", truncate="head", deadline=2.0, return_errors=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Verdict", "DeadlineExceeded"]
    assert {(body["policy"], body["truncate"]) for body in guard.bodies} == {("strict", "head")}


def test_stopping_early_does_not_wait_for_the_rest(fake_guard, connect, gate):
    """Breaking out of the loop blocks until every request in flight is answered."""
    guard = fake_guard(lambda body: (last_text(body) == "first" or gate.wait()) and echo(body))
    start = time.monotonic()
    items = itertools.chain(["first"], itertools.repeat("stuck"))
    assert texts(connect(guard, deadline=60.0).bulk(items, take=1, concurrency=4)) == ["first"]
    assert time.monotonic() - start < 20.0  # the deadline is 60


def test_closing_the_client_ends_what_was_abandoned(fake_guard, gate):
    """Worker threads of an abandoned bulk job keep the process from exiting until their deadlines."""
    guard = fake_guard(lambda body: (last_text(body) == "first" or gate.wait()) and echo(body))
    with GuardClient(guard.url, deadline=60.0) as client:
        next(iter(client.classify_many(["first", "stuck", "stuck"], concurrency=3)))
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("verdictree-client")]
    for worker in workers:
        worker.join(timeout=2.0)
    assert workers and not any(worker.is_alive() for worker in workers)


def test_stopping_early_cancels_the_requests_in_flight(fake_guard, gate):
    """asyncio: abandoned requests go on computing on the server."""
    guard = fake_guard(lambda body: (last_text(body) == "first" or gate.wait()) and echo(body))

    async def main():
        async with AsyncGuardClient(guard.url, deadline=60.0) as client:
            async with aclosing(client.classify_many(["first", "stuck"], concurrency=2)) as verdicts:
                await anext(verdicts)
                while len(guard.bodies) < 2:
                    await asyncio.sleep(0.01)
            return await asyncio.to_thread(guard.cancelled.wait, 2.0)

    assert asyncio.run(main())


def test_an_asynchronous_source(fake_guard):
    """An asynchronous iterable is refused, or drained before the first verdict."""

    async def endless():
        for n in itertools.count():
            await asyncio.sleep(0)
            yield str(n)

    async def main():
        client = AsyncGuardClient(fake_guard().url)
        async with client, aclosing(client.classify_many(endless(), concurrency=3)) as verdicts:
            return [(await anext(verdicts)).greedy.text for _ in range(5)]

    assert asyncio.run(main()) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("client_class", [GuardClient, AsyncGuardClient])
def test_what_is_no_bulk_job_is_refused_at_once(client_class):
    """A str is classified letter by letter; a concurrency of 0 never starts."""
    client = client_class()
    with pytest.raises(InvalidRequest, match="one str"):
        client.classify_many("hello")
    with pytest.raises(ValueError, match="concurrency"):
        client.classify_many(["hello"], concurrency=0)
