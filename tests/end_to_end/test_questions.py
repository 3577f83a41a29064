"""A guard that is asked about one category at a time, by a real Triton: several prompts a request, one verdict."""

from __future__ import annotations

import pytest
import tiny_guard

from verdictree.conversation import Conversation, Message
from verdictree.policy import Category, Policy
from verdictree.runtime.local_guard import LocalGuard
from verdictree_client import GuardClient, InvalidRequest
from verdictree_export.exporter import export_release
from verdictree_serving import TritonServer

pytestmark = pytest.mark.server

THREE = Policy("three", "1", tuple(Category(code, code.title()) for code in ("harm", "bias", "violence")))
TWO = Policy("two", "1", THREE.categories[1:], roles=("user",))


def test_served_equals_offline(tmp_path):
    """Tensors of several questions a request, and of a grammar that expands nothing, must pass through every step."""
    folder = tiny_guard.write_checkpoint(tmp_path / "checkpoint", template=tiny_guard.QUESTION_TEMPLATE)
    export_release(str(folder), "auto", [THREE, TWO], tmp_path / "models", max_off_grammar=1.0)
    offline = LocalGuard.load(tmp_path / "models", 1)
    assert offline.release.family == "granite-guardian" and offline.release.num_questions == 3
    requests = [
        Conversation((Message("user", f"hello {'there ' * (i % 3)}"),), policy=("three", "two")[i % 2])
        for i in range(8)
    ]
    with TritonServer(tmp_path / "models") as server, GuardClient(server.grpc_address, deadline=60.0) as client:
        served = list(client.classify_many(requests, concurrency=4))
        with pytest.raises(InvalidRequest, match="role user, which policy 'two' judges"):
            client.classify([Message("user", "a"), Message("assistant", "b")], policy="two")
    for request, verdict in zip(requests, served, strict=True):
        (alone,) = offline.classify([request])
        assert [score.code for score in verdict.categories] == [score.code for score in alone.categories]
        assert [s.marginal for s in verdict.categories] == pytest.approx(
            [s.marginal for s in alone.categories], rel=1e-3
        )
        assert verdict.p_unsafe == max(score.marginal for score in verdict.categories) > 0
        assert (verdict.policy, verdict.num_tokens) == (request.policy, alone.num_tokens)
