"""Releases that older versions of the software made, and manifests that this one cannot read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import msgspec
import pytest
import tiny_guard
from test_emergency import OLD, releases_that_answer

from verdictree.conversation import Conversation, Message
from verdictree.errors import InvalidRelease
from verdictree.releases import VERSION, adapters, startup
from verdictree.releases import repository as repositories
from verdictree.releases.release import COMPOSING_MODELS, FORMAT, FORMAT_WITHOUT_EXIT, MANIFEST, Release
from verdictree.releases.repository import ADAPTER
from verdictree.runtime.local_guard import LocalGuard
from verdictree_client import GuardClient, GuardError, Overloaded
from verdictree_client.rollout import Rollout
from verdictree_serving import TritonServer

REPOSITORY = Path(__file__).parents[2] / "model_repository"


@pytest.fixture
def old(tmp_path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "models"))


def old_adapter(repository, model="guard_tokenizer"):
    return (repository / model / "1" / ADAPTER).read_text()


def test_adapters_are_those_of_the_template():
    """A release with other adapters than the tested ones."""
    for path in REPOSITORY.glob("*/1/model.py"):
        assert path.read_text() == adapters.adapter(path.parts[-3])
    assert adapters.adapter("guard_lm") is None


@pytest.mark.server
def test_an_old_release_is_served_as_it_is(old):
    """An upgrade after which releases whose adapters cannot be replaced do not load."""
    with TritonServer(old) as server, GuardClient(server.grpc_address, deadline=60.0) as guard:
        golden = Release.load(old / "guard_lm/1").golden[0]
        verdict = guard.classify(list(golden.messages))
        assert verdict.p_unsafe == pytest.approx(golden.p_unsafe, abs=1e-3)
    assert old_adapter(old) == old_adapter(OLD) and "triton_steps" not in old_adapter(old)


@pytest.mark.server
def test_an_old_release_judges_long_texts_in_windows(old):
    """An option that works with new exports only, or an upgrade that changes what old ones say."""
    conversation = Conversation((Message("user", "why so, hello? " * 400),), truncate="windows")
    (alone,) = LocalGuard.load(old, 1, threads=1).classify([conversation])
    startup.prepare(old, None)
    assert "dims: [ 2 ]" not in (old / "guard_marginals" / "config.pbtxt").read_text()
    with TritonServer(old) as server, GuardClient(server.grpc_address, deadline=60.0) as guard:
        served, short = guard.classify(conversation), guard.classify("hello")
    assert served.p_unsafe == pytest.approx(alone.p_unsafe, abs=1e-6)
    assert [(one.begin, one.end) for one in served.windows] == [(one.begin, one.end) for one in alone.windows]
    assert len(served.windows) > 2 and not short.windows


@pytest.mark.server
def test_long_requests_wait_in_bounds(old):
    """A client that sends nothing but long texts fills the server's memory, and its next hour."""
    startup.prepare(old, None)
    with TritonServer(old) as server, GuardClient(server.grpc_address, deadline=60.0) as guard:
        texts = [f"{i} why so, hello? " + "why " * 2000 for i in range(60)]
        outcomes = list(guard.classify_many(texts, concurrency=60, truncate="windows", return_errors=True))
        assert 0 <= guard.classify("hello").p_unsafe <= 1
    refused = [one for one in outcomes if isinstance(one, GuardError)]
    assert 0 < len(refused) < 60 and {type(one) for one in refused} == {Overloaded}, refused


@pytest.mark.server
def test_windows_of_an_old_configuration_are_an_error(old):
    """A repository that cannot be written to answers half of a long text, or stops answering short ones."""
    with TritonServer(old) as server, GuardClient(server.grpc_address, deadline=60.0) as guard:
        with pytest.raises(GuardError):
            guard.classify("why so, hello? " * 400, truncate="windows")
        assert 0 <= guard.classify("hello").p_unsafe <= 1


@pytest.mark.server
def test_an_old_release_rolls_out_and_back_beside_a_new_one(old, tmp_path):
    """An upgrade that leaves no way back to the release that was there before it."""
    from verdictree_export.exporter import export_release

    checkpoint = tiny_guard.write_checkpoint(tmp_path / "checkpoint", seed=5, vocab_size=300, verdict_strength=3.0)
    export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], old)
    with TritonServer(old) as server, Rollout(old, server.grpc_address) as rollout:  # its old adapters still run
        rollout.stage(2)
        rollout.canary(0.5)
        assert releases_that_answer(server) == {1, 2}
        rollout.canary(0.0)
        rollout.promote(force=True, reason="test")
        assert rollout.rollback() == 1 and releases_that_answer(server) == {1}
        rollout.promote(force=True, reason="test") if rollout.status().candidate else rollout.stage(2)
    assert startup.prepare(old, 2) == 2 and old_adapter(old) == old_adapter(OLD), "nobody needed it"
    with TritonServer(old) as server, Rollout(old, server.grpc_address) as rollout:
        rollout.stage(1)
        assert old_adapter(old) == adapters.adapter("guard_tokenizer")
        rollout.promote(force=True, reason="test")
        assert releases_that_answer(server) == {1}
        assert rollout.rollback() == 2
        derived = rollout.derive(1, thresholds={None: 0.3}).number
        rollout.stage(derived)
        rollout.promote(force=True, reason="test")
        assert releases_that_answer(server) == {derived}


def test_a_start_brings_the_adapters_up_to_date(old):
    """Old releases that import names for ever, and a refresh that makes a release count as changed."""
    assert startup.prepare(old, None) == 1
    for model in (*COMPOSING_MODELS, "guard_router"):
        text = adapters.adapter(model)
        assert text is None or old_adapter(old, model) == text
    assert Release.load_verified(old, 1).format == 1
    (old / "guard_tokenizer/1" / ADAPTER).write_text("def broken(")
    startup.prepare(old, None)
    assert old_adapter(old) == adapters.adapter("guard_tokenizer")


def rewrite(repository, **changes):
    for model in COMPOSING_MODELS:
        path = repository / model / "1" / MANIFEST
        content = json.loads(path.read_text())
        content.update(changes)
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"format": FORMAT + 1, "software": "9.9"},
            f"made by verdictree 9.9, in format {FORMAT + 1}; this is",
        ),
        (
            {"format": FORMAT + 1, "software": "9.9", "tree": None},
            f"formats up to {FORMAT}: install that version",
        ),
        (
            {"tree": {}},
            "before manifests named it, in format 1; .* serve it with the version that made",
        ),
        (
            {"tree": {}, "format": 2, "software": "0.0.9"},
            "was made by verdictree 0.0.9, in format 2; this is",
        ),
        ({"tree": {}, "format": 2, "software": VERSION}, "is damaged .*; export the release again"),
        ({"format": "two"}, "is damaged"),
    ],
)
def test_a_manifest_of_another_version_says_so(old, changes, said):
    """An operator who exports for hours what only another version can read."""
    rewrite(old, **changes)
    with pytest.raises(InvalidRelease, match=said):
        Release.load(old / "guard_lm/1")
    with pytest.raises(InvalidRelease, match=said):
        startup.prepare(old, None)


def test_the_writer_names_itself(old):
    """A release of which nobody knows what can read it."""
    with Rollout(old, "127.0.0.1:1") as rollout:
        derived = rollout.derive(1, thresholds={None: 0.2})
    assert (derived.format, derived.software, derived.shares) == (FORMAT_WITHOUT_EXIT, VERSION, 1)
    assert derived.guard_sha256 == Release.load(old / "guard_lm/1").guard_sha256
    assert msgspec.json.decode(derived.to_json())["format"] == FORMAT_WITHOUT_EXIT
    assert re.fullmatch(r"\d+\.\d+.*", VERSION) and repositories.steps(old, 2)["guard_lm"] == 1
