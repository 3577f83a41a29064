"""Promoting and rolling back under a load that leaves the server no rest."""

from __future__ import annotations

import time

import numpy as np
import pytest

from verdictree.releases.repository import ENSEMBLE
from verdictree_client.rollout.server import Server

pytestmark = pytest.mark.server
NUM_CYCLES = 20
NUM_GROUPS = 5  # a p99 of 40 flips is the two slowest requests: one hiccup of the machine would decide it
PAUSE_SECONDS = 0.4  # nobody promotes in the moment in which staging ends, and staging has a latency of its own


def test_twenty_cycles_lose_nothing(rollout, server, saturated, p_unsafe, monkeypatch):
    """Requests lost or answered by two releases at once, and against a latency step, at a flip."""
    flips: list[tuple[float, float]] = []
    load_model = Server.load

    def timed(self, model, config=None):
        begin = time.time()
        load_model(self, model, config)
        if model == ENSEMBLE:
            flips.append((begin, time.time()))

    monkeypatch.setattr(Server, "load", timed)
    with saturated(server) as load:
        for _ in range(NUM_CYCLES):
            rollout.stage(2)
            time.sleep(PAUSE_SECONDS)
            assert rollout.promote(force=True, reason="test") == 2
            time.sleep(PAUSE_SECONDS)
            assert rollout.rollback() == 1
    assert load.failures == [] and load.mixed(p_unsafe) == []
    assert {one[3] for one in load.results} == {1, 2}
    assert len(flips) == 2 * NUM_CYCLES
    # A window catches long requests rather than short ones, and the machine has slow minutes: the steady latency is
    # taken through windows of the same lengths, several in the pause before each flip.
    shifts = np.linspace(0.2, 0.8, 6) * PAUSE_SECONDS
    groups = [flips[i::NUM_GROUPS] for i in range(NUM_GROUPS)]
    before = [[(begin - shift, end - shift) for begin, end in group for shift in shifts] for group in groups]

    def p99(groups: list[list[tuple[float, float]]]) -> float:
        return float(np.median([np.percentile(load.milliseconds(windows), 99) for windows in groups]))

    steady, flipping = p99(before), p99(groups)
    lengths = [1000 * (end - begin) for begin, end in flips]
    print(f"flips take {np.median(lengths):.0f} ms, at most {max(lengths):.0f}")
    print(f"p99 {steady:.1f} ms steady, {flipping:.1f} ms during {len(flips)} flips, {len(load.results)} requests")
    assert flipping <= 2 * steady
