"""What a step counts for Triton's metrics: what Prometheus' own histograms would say, for a hundredth of the time."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from verdictree.verdict_metrics import Metric
from verdictree_serving.tally import Cell, Tally

SCORES = Metric("score", "Scores.", ("release", "category"), (0.1, 0.5, 1.0))
ACTIONS = Metric("actions", "Actions.", ("action",))


class Clock:
    """A time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_says_what_prometheus_histograms_say():
    """A score on a bucket's bound falls into the next one, or a bucket does not hold those below it."""
    rng, registry = random.Random(1), CollectorRegistry()
    histogram = Histogram("score", "Scores.", SCORES.labels, buckets=SCORES.buckets, registry=registry)
    counter = Counter("actions", "Actions.", ACTIONS.labels, registry=registry)
    tally, found = Tally(), defaultdict(float)

    def increment(cell: Cell, value: float) -> None:
        assert value >= 0, "counters only grow"
        name, names, values = cell
        found[name, frozenset(zip(names, values, strict=True))] += value

    for number in range(1000):
        labels = rng.choice([("1", "S1"), ("1", "S2"), ("2", "S1")])
        score = rng.choice([0.0, 0.1, 0.5, 1.0, rng.random(), 1.0000001])
        histogram.labels(*labels).observe(score)
        tally.add(SCORES, labels, score)
        action = rng.choice(["allow", "block"])
        counter.labels(action).inc()
        tally.add(ACTIONS, (action,))
        if number % 7 == 0:
            tally.hand_on(increment)
    tally.hand_on(increment, everything=True)
    for family in registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            labels = {**sample.labels}
            if "le" in labels and labels["le"] != "+Inf":
                labels["le"] = f"{float(labels['le']):g}"
            assert found.pop((sample.name, frozenset(labels.items())), 0.0) == pytest.approx(sample.value), sample
    assert not found


@pytest.mark.parametrize("pause", [0.0005, 0.1, 5.0])
def test_handing_on_takes_a_hundredth_of_the_time(pause):
    """Metrics that slow down the verdicts that they tell of."""
    clock = Clock()
    tally, spent = Tally(clock), 0.0

    def increment(cell: Cell, value: float) -> None:
        nonlocal spent
        clock.now += 50e-6
        spent += 50e-6

    longest = 0.0
    for _ in range(400):
        clock.now += pause
        for category in range(15):
            tally.add(SCORES, ("1", f"S{category}"), 0.05)
        begin = clock.now
        tally.hand_on(increment)
        longest = max(longest, clock.now - begin)
    assert 0 < spent < 0.01 * clock.now + 2e-3
    assert longest < 1.5e-3


def test_what_waited_longest_goes_first():
    """A series that is counted seldom is never told of beside one that is counted always."""
    clock, told = Clock(), []
    tally = Tally(clock)

    def increment(cell: Cell, value: float) -> None:
        clock.now += 2e-3
        told.append(cell[2][0])

    for number in range(6):
        clock.now += 10.0
        tally.add(ACTIONS, ("seldom",) if number == 0 else ("always",))
        tally.add(ACTIONS, ("always",))
        tally.hand_on(increment)
    assert told[:2] == ["seldom", "always"]
