"""Answers that are kept for conversations that come again, while releases change."""

from __future__ import annotations

import http.client
from contextlib import closing

import pytest

from verdictree.conversation import Message
from verdictree_client import GuardClient, InvalidRequest
from verdictree_client.rollout import Rollout

pytestmark = pytest.mark.server
HELLO = [Message("user", "hello")]


def hits(server) -> float:
    host, _, port = server.metrics_address.partition(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("nv_cache_num_hits_per_model"))


def test_a_conversation_that_comes_again_is_not_computed_again(repository, start):
    """A cache that never hits is no cache, and one that keeps errors would spread them."""
    server = start(repository, response_cache_mb=16)
    with GuardClient(server.grpc_address, deadline=60.0) as client:
        first = client.classify(HELLO)
        assert hits(server) == 0
        assert client.classify(HELLO) == first and hits(server) == 1
        for _ in range(2):
            with pytest.raises(InvalidRequest):
                client.classify(HELLO, policy="nobody's")
        assert hits(server) == 1


def test_no_cache_unless_asked_for(repository, server):
    """Kept answers are kept texts: an operator must ask for it."""
    with GuardClient(server.grpc_address, deadline=60.0) as client:
        assert client.classify(HELLO) == client.classify(HELLO)
    assert hits(server) == 0


def test_a_release_never_answers_for_another(repository, start):
    """An answer kept from before a canary, a promotion or a rollback would be the wrong release's."""
    server = start(repository, response_cache_mb=16)
    with GuardClient(server.grpc_address, deadline=60.0) as client, Rollout(repository, server.grpc_address) as rollout:

        def releases() -> list[int]:
            return [client.classify(HELLO).release for _ in range(2)]

        assert releases() == [1, 1]
        rollout.stage(2)
        rollout.canary(1.0)
        assert releases() == [2, 2]
        rollout.canary(0.0)
        assert releases() == [1, 1]
        rollout.promote(force=True, reason="test")
        assert releases() == [2, 2]
        rollout.rollback()
        assert releases() == [1, 1]
