"""Windows of a guard that is asked about one category at a time: each of them by every prompt."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_guard
from core.test_windows import by_hand, long_text

from verdictree.conversation import Conversation, Message
from verdictree.policy import Category, Policy
from verdictree.runtime.local_guard import LocalGuard
from verdictree_export.exporter import export_release

pytestmark = pytest.mark.slow

THREE = Policy("three", "1", tuple(Category(code, code.title()) for code in ("harm", "bias", "violence")))
TWO = Policy("two", "1", THREE.categories[1:])


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    folder = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("tiny"), template=tiny_guard.QUESTION_TEMPLATE)
    models = tmp_path_factory.mktemp("models")
    export_release(str(folder), "auto", [THREE, TWO], models, max_off_grammar=1.0)
    return LocalGuard.load(models, 1, threads=1)


@pytest.mark.parametrize("policy", ["three", "two"])
def test_each_category_is_that_of_its_worst_window(guard, policy):
    """A question about one window that is taken for a question about another."""
    conversation = Conversation((Message("user", long_text(700)),), policy=policy, truncate="windows")
    (verdict,) = guard.classify([conversation])
    _, alone = by_hand(guard, conversation)
    assert len(verdict.windows) == len(alone) > 2
    marginals = np.array([[score.marginal for score in one.categories] for one in alone])
    assert [score.marginal for score in verdict.categories] == pytest.approx(marginals.max(axis=0), rel=1e-5)
    for column, score in enumerate(verdict.categories):
        assert marginals[score.window, column] == pytest.approx(marginals[:, column].max(), rel=1e-5)
    assert verdict.p_unsafe == pytest.approx(marginals.max(), rel=1e-5)
    assert [window.p_unsafe for window in verdict.windows] == pytest.approx(marginals.max(axis=1), rel=1e-5)
    assert verdict.p_safe == pytest.approx(min(one.p_safe for one in alone), rel=1e-5)
