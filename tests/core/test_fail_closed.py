"""A number that is none, or a guard that answers something else, is never a verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from verdictree.conversation import Conversation, Message
from verdictree.errors import NoVerdict
from verdictree.releases.decision import Decision
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.scorer import Scorer
from verdictree.verdict import Verdict

RELEASE = Path(__file__).parents[1] / "old_releases" / "format_1"


@pytest.fixture(scope="module")
def computed():
    """A guard, a tokenized conversation, and what the graph says of it."""
    guard = LocalGuard.load(RELEASE, 1, threads=1)
    batch = [guard.tokenize(Conversation((Message("user", "hello"),)))]
    return guard, batch, guard.infer(batch)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("output", [0, 1, 2])
def test_one_number_that_is_none_is_no_verdict(computed, output, number):
    """NaN compares with no threshold, so a damaged guard flags nothing."""
    guard, batch, outputs = computed
    (whole,) = guard.outcomes(batch, outputs)
    assert isinstance(whole, Verdict)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(200):
        damaged = [array.copy() for array in outputs]
        damaged[output][tuple(rng.integers(size) for size in damaged[output].shape)] = number
        (found,) = guard.outcomes(batch, damaged)
        # A node that no path has reached says nothing, and may hold anything.
        assert isinstance(found, NoVerdict) or found == whole
        refused += isinstance(found, NoVerdict)
    assert refused > 20


def test_a_guard_that_answers_something_else_is_flagged(computed):
    """P(unsafe) is next to 0 because the guard says nothing of the kind, and that passes for "not flagged"."""
    guard, batch, outputs = computed
    (verdict,) = guard.outcomes(batch, outputs)
    for limit, undecided in ((verdict.off_grammar + 1e-6, False), (verdict.off_grammar - 1e-6, True)):
        strict = Scorer(msgspec.structs.replace(guard.release, max_off_grammar=limit))
        (found,) = strict.outcomes(batch, outputs)
        assert found.undecided == undecided and bool(found.flagged) == undecided
        assert found.action == ("block" if undecided else None)
        said = json.loads(found.to_json())
        assert said.get("flagged", False) is undecided and said.get("undecided", False) is undecided
        assert Decision(guard.release.policy).applied(found).flagged or not undecided


def test_offline_raises_what_a_server_answers_as_an_error(computed):
    """An evaluation counts rows as safe that a server would have refused."""
    guard, batch, outputs = computed
    damaged = [array * math.nan if array.dtype == np.float32 else array for array in outputs]
    with pytest.raises(NoVerdict, match="expected finite numbers"):
        raise guard.outcomes(batch, damaged)[0]


def test_what_a_stranger_sends_is_measured_before_it_is_scored(computed):
    """A tensor of another shape is an IndexError, and fails everybody's batch."""
    guard, batch, outputs = computed
    names = ("label_logits", "log_normalizer", "top_logit", "expansions")
    good = dict(zip(names, outputs, strict=True))
    good |= {"prefix_id": np.array([batch[0].prefix_ids], np.int32), "token_counts": np.array([[5, 0]], np.int32)}
    assert guard.score.fault(good) is None
    for name, array in good.items():
        for other in (array[:0], np.concatenate([array, array]), array[..., :0], array[:, :-1]):
            if other.shape != array.shape and not (name == "expansions" and len(other) == 1):
                assert guard.score.fault({**good, name: other}), (name, other.shape)
    for value in (-1, len(guard.release.prompts), 99):
        assert "prefix_id from 0 to" in guard.score.fault({**good, "prefix_id": good["prefix_id"] * 0 + value})
    for value in (-7, 12345):
        assert "expected expansions" in guard.score.fault({**good, "expansions": good["expansions"] * 0 + value})
