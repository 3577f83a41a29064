"""Canary and shadow, as any client of the server meets them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import tritonclient.grpc as triton

from verdictree import pair as pairs
from verdictree import routing
from verdictree.conversation import Conversation, Message
from verdictree.releases.admin_key import ADMIN_KEY_NAME
from verdictree_client import GuardClient, InvalidRequest
from verdictree_client.rollout import Refused, Rollout
from verdictree_serving.triton_steps.inner_errors import code_of

pytestmark = pytest.mark.server
KEYS = [f"user-{i}" for i in range(120)]


@pytest.fixture(scope="module")
def split_server(two_releases, tmp_path_factory):
    """One server for the tests of this file, each of which stages release 2 and retires it."""
    import shutil

    from verdictree.releases import startup
    from verdictree_serving import TritonServer

    repository = shutil.copytree(two_releases, tmp_path_factory.mktemp("split") / "models")
    startup.prepare(repository, None)
    with TritonServer(repository) as server, Rollout(repository, server.grpc_address) as rollout:
        rollout.stage(2)
        yield repository, server, rollout


@pytest.fixture
def staged(split_server):
    yield split_server
    _, _, rollout = split_server
    rollout.canary(0.0)
    rollout.shadow(0.0)


def ask(client, key, text="hello"):
    """As a user of another language asks: JSON in a tensor."""
    request = {"messages": [{"role": "user", "content": text}], "routing_key": key}
    tensor = triton.InferInput("request", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[json.dumps(request).encode()]], dtype=object))
    return json.loads(client.infer("guard", [tensor]).as_numpy("verdict").item())


def test_canary_is_a_stable_share_of_the_keys(staged):
    """Users that change releases between requests, and a fraction that nobody can predict."""
    _, server, rollout = staged
    with triton.InferenceServerClient(server.grpc_address) as client:
        rollout.canary(0.25)
        first = {key: ask(client, key)["release"] for key in KEYS}
        assert first == {key: ask(client, key, text="something else")["release"] for key in KEYS}
        assert first == {key: 2 if routing.share(key.encode(), "2") < 0.25 else 1 for key in KEYS}
        rollout.canary(0.5)
        wider = {key: ask(client, key)["release"] for key in KEYS}
        assert all(wider[key] == 2 for key in KEYS if first[key] == 2)
        assert 40 <= sum(release == 2 for release in wider.values()) <= 80
        rollout.canary(0.0)
        assert {ask(client, key)["release"] for key in KEYS} == {1}


def test_split_answers_are_whole(staged, saturated, p_unsafe):
    """Answers lost or mixed while the split begins, changes and ends under load."""
    _, server, rollout = staged
    with saturated(server) as load:
        for fraction in (0.3, 0.6, 0.0):
            rollout.canary(fraction)
            time.sleep(1.0)
    assert load.failures == [] and load.mixed(p_unsafe) == []
    assert {one[3] for one in load.results} == {1, 2}


def test_bad_request_keeps_its_error(staged):
    """A refusal that comes as a server failure, or not at all, while a canary runs."""
    _, server, rollout = staged
    rollout.canary(1.0)
    with GuardClient(server.grpc_address) as guard:
        with pytest.raises(InvalidRequest, match="expected policy 'tiny'"):
            guard.classify("hello", policy="other")
        with pytest.raises(InvalidRequest, match="expected at most"):
            guard.classify("word " * 5000)
        assert guard.classify("hello", routing_key="me").release == 2


def test_shadow_records_and_never_answers(staged):
    """A candidate's verdict that reaches a user, and a record that compares different conversations."""
    repository, server, rollout = staged
    rollout.shadow(0.5)
    with triton.InferenceServerClient(server.grpc_address) as client:
        assert {ask(client, key, text=f"hello {key}")["release"] for key in KEYS} == {1}
    rollout.shadow(0.0)  # unloads the router, which records what waits
    (record,) = (repository / ".rollout").glob("shadow-1-2-*.jsonl")
    found = list(pairs.read(record))
    assert record.stat().st_mode & 0o077 == 0
    expected = [key for key in KEYS if routing.share(key.encode(), "shadow:2") < 0.5]
    assert sorted(one.conversation.routing_key for one in found) == sorted(expected)
    for one in found:
        assert (one.live.release, one.candidate.release) == (1, 2)
        assert one.live_ms > 0 and one.candidate_ms > 0
    rollout.shadow(1.0, record_texts=False)
    with GuardClient(server.grpc_address) as guard:
        guard.classify("a secret")
    rollout.shadow(0.0)
    assert b"a secret" not in record.read_bytes()
    assert len(list(pairs.read(record))) == len(found) + 1


def test_candidate_that_fails_costs_no_answer(staged):
    """Users who lose their answer since a canary broke after it was staged."""
    _, server, rollout = staged
    rollout.canary(1.0)
    with triton.InferenceServerClient(server.grpc_address) as client:
        assert ask(client, "me")["release"] == 2
        client.unload_model("guard_candidate", headers={f"triton-grpc-protocol-{ADMIN_KEY_NAME}": server.admin_key})
        assert ask(client, "me")["release"] == 1
    rollout.canary(0.0)
    rollout.stage(2)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("in ensemble 'guard_live', expected policy 'a' or none, got 'b'; release 1 has no other", "INVALID_ARG"),
        ("in ensemble 'guard_live', Exceeds maximum queue size", "UNAVAILABLE"),
        ("Failed for execute the inference request. Model 'guard_live' is not ready.", "UNAVAILABLE"),
        ("in ensemble 'guard_live', onnx runtime error", "INTERNAL"),
    ],
)
def test_code_of_an_inner_error(message, code):
    """Retries of a request that can never succeed, and none of one that can."""
    assert code_of(message) == code


def test_split_needs_a_staged_release(rollout):
    """A canary of nothing."""
    with pytest.raises(Refused, match="run `stage` first"):
        rollout.canary(0.1)
    with pytest.raises(Refused, match="from 0 to 1"):
        rollout.shadow(1.5)


def test_routing_key_defaults_to_the_messages():
    """A canary that is another one for each policy or spelling of the same conversation."""
    one = Conversation((Message("user", "hello"),))
    other = Conversation((Message("user", "hello"),), policy="tiny", truncate="head")
    assert routing.routing_key(one) == routing.routing_key(other)
    assert routing.routing_key(Conversation(one.messages, routing_key="me")) == b"me"
    shares = [routing.share(str(i).encode(), "2") for i in range(4000)]
    assert min(shares) >= 0 and max(shares) < 1 and abs(np.mean(shares) - 0.5) < 0.03
