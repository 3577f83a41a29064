"""When a gateway switches early exits off: on traffic of another kind than the rule was proven on."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from exit_guard import conversations
from prometheus_client import CollectorRegistry
from scipy import stats

from verdictree.verdict import CategoryScore, GreedyVerdict, Verdict
from verdictree_gateway.observing.exits import Exits, wilson
from verdictree_gateway.settings import Settings

ASKED = conversations(1, 0)[0]


def verdict(flagged: bool, exit_layer: int | None = None) -> Verdict:
    greedy = GreedyVerdict("safe", (), True)
    category = CategoryScore("S1", "One", 0.0, 0.0, 0.0)
    return Verdict(
        1, "tiny", "user", 0.1, 0.9, (category,), 0.0, 0.0, greedy, 1, 0, flagged=flagged, exit_layer=exit_layer
    )


def run(tmp_path, *, left: int, missed_one_in: int, alerts: int, share: float = 1.0) -> Exits:
    """A gateway's day: so many requests left, of which one in so many is an alert in full."""
    asked = iter(range(10**6))

    async def ask(conversation, _seconds):
        assert conversation.exact
        return verdict(missed_one_in > 0 and next(asked) % missed_one_in == 0), b""

    async def day() -> Exits:
        exits = Exits(Settings(triton=(), exit_check_share=share), ask, CollectorRegistry(), tmp_path / "off")
        for _ in range(alerts):
            exits.answered(ASKED, verdict(True))
        for _ in range(left):
            exits.answered(ASKED, verdict(False, exit_layer=2))
            await asyncio.sleep(0)
            await asyncio.gather(*exits._tasks)
        return exits

    return asyncio.run(day())


def test_traffic_like_that_of_the_proof_keeps_leaving(tmp_path):
    """One of 4,000 that left, beside 1,000 alerts: 0.02 to 0.1 % are missed, of 0.5 % allowed."""
    exits = run(tmp_path, left=4000, missed_one_in=4000, alerts=1000)
    assert not exits.is_off
    assert exits.asked(ASKED) == ASKED


def test_traffic_of_another_kind_ends_it(tmp_path):
    """One in ten that left is an alert: exits end long before the day does, for every process that sees the file."""
    exits = run(tmp_path, left=400, missed_one_in=10, alerts=20)
    assert exits.is_off and (tmp_path / "off").exists()
    assert exits.asked(ASKED) == msgspec.structs.replace(ASKED, exact=True)
    other = run(tmp_path, left=0, missed_one_in=0, alerts=0)
    assert other.is_off


def test_nothing_is_checked_where_nothing_is_to_be(tmp_path):
    exits = run(tmp_path, left=50, missed_one_in=1, alerts=0, share=0.0)
    assert not exits.is_off


@pytest.mark.parametrize(("count", "of"), [(0, 10), (1, 10), (5, 10), (3, 1000), (10, 10)])
def test_limits_are_wilsons(count, of):
    """Against SciPy's: one-sided limits of 95 % are the two-sided ones of 90 %."""
    expected = stats.binomtest(count, of).proportion_ci(0.9, method="wilson")
    low, high = wilson(count, of)
    assert low == pytest.approx(expected.low if count else 0.0, abs=1e-3)
    assert high == pytest.approx(expected.high, abs=1e-3)
