"""The line before a step: bounded in number and in time, in order, and nobody is lost."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from verdictree.releases import model_config
from verdictree_serving.errors import InvalidModelConfig
from verdictree_serving.gate import GATE_VARIABLE, Gate
from verdictree_serving.waiting_line import Limits, WaitingLine


def test_who_finds_no_room_is_refused_at_once() -> None:
    """A line without an end: everybody in it waits in vain."""
    refused: list[tuple[int, str]] = []
    line = WaitingLine[int](Limits(3, 60.0), lambda item, why: refused.append((item, why)))
    for item in range(5):
        line.join(item)
    assert refused == [(item, "Exceeds maximum queue size: 3 requests wait") for item in (3, 4)]
    assert line.take(2) == [0, 1] and line.take(2) == [2] and line.take(2) == []
    line.join(5)
    assert line.take() == [5] and len(refused) == 2


def test_who_waited_too_long_is_not_served() -> None:
    """Work for callers who have gone, or a caller whose own shorter limit is not kept."""
    refused: list[tuple[int, str]] = []
    line = WaitingLine[int](Limits(3, 0.05), lambda item, why: refused.append((item, why)))
    line.join(-1, 1e-9)
    assert line.take() == [-1], "the first one, which warms a release up, has its time"
    line.join(0, 60.0)  # a caller cannot wait longer than the line allows
    line.join(1, 0.01)
    line.join(2)
    time.sleep(0.02)
    line.join(3)  # there is room again: the second has expired
    assert refused == [(1, "Request timeout expired")]
    time.sleep(0.05)
    line.join(4)
    assert line.take(5) == [4]
    assert [item for item, _ in refused] == [1, 0, 2, 3]


def test_nobody_is_lost_or_served_twice() -> None:
    """A request without an answer waits for ever; one with two answers ends Triton's process."""
    seen: Counter[int] = Counter()
    lock = threading.Lock()

    def count(item: int) -> None:
        with lock:
            seen[item] += 1

    line = WaitingLine[int](Limits(8, 0.002), lambda item, why: count(item))

    def work() -> None:
        while line.wait():
            for item in line.take(3):
                count(item)
                time.sleep(0.0003)

    workers = [threading.Thread(target=work) for _ in range(3)]
    callers = [
        threading.Thread(target=lambda start=start: [line.join(start + number) for number in range(500)])
        for start in range(0, 4000, 500)
    ]
    for thread in (*workers, *callers):
        thread.start()
    for thread in callers:
        thread.join()
    line.close()
    for thread in workers:
        thread.join(10)
        assert not thread.is_alive()
    assert seen == Counter(range(4000))


def test_the_gate_is_closed_while_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are encoded only to be refused; or none is let in any more, though the line is empty."""
    monkeypatch.setenv(GATE_VARIABLE, str(tmp_path / "gate"))
    of_first, of_second = Gate.before_graph("1"), Gate.before_graph("2")
    of_first.close("left by a process that was killed")
    line = WaitingLine[int](Limits(8, 60.0), lambda item, why: None, of_first)
    assert of_first.reason() is None
    for item in range(8):
        assert of_first.reason() is None
        line.join(item)
    assert of_first.reason() == "Exceeds maximum queue size: 8 requests wait"
    assert of_second.reason() is None and Gate.of_environment().reason() is None
    line.take()
    assert of_first.reason(), "it does not open and close for each"
    line.take()
    assert of_first.reason() is None


def test_a_gate_on_a_full_disk_holds_nobody_up(tmp_path: Path) -> None:
    """A line whose worker dies with the disk, and whose requests then wait for ever."""
    line = WaitingLine[int](Limits(1, 60.0), lambda item, why: None, Gate(tmp_path / "no folder" / "gate"))
    line.join(1)
    assert line.take() == [1]


@pytest.mark.parametrize(("key", "value"), [("queue_size", "many"), ("queue_size", "0"), ("queue_seconds", "-1")])
def test_limits_that_are_none_are_refused(key: str, value: str) -> None:
    """A slip in a configuration that leaves a server which refuses everybody, or nobody."""
    with pytest.raises(InvalidModelConfig, match=key):
        Limits.of({"parameters": {key: {"string_value": value}}})


FORMER = """dynamic_batching {
  default_queue_policy {
    timeout_action: REJECT
    default_timeout_microseconds: 1500000
    allow_timeout_override: true
    max_queue_size: 128
  }
}
instance_group [ { kind: KIND_CPU, count: 1 } ]
"""


def test_configurations_of_old_repositories_get_the_line() -> None:
    """An upgraded server on which Triton goes on holding requests back, with other limits than were set."""
    found = model_config.with_own_queue(FORMER)
    assert found.startswith("dynamic_batching { }\n") and found.endswith("count: 1 } ]\n")
    assert 'key: "queue_size", value: { string_value: "128" }' in found
    assert 'key: "queue_seconds", value: { string_value: "1.5" }' in found
    assert model_config.with_own_queue(found) == found
    assert 'string_value: "3"' in model_config.with_own_queue(found, deadline=4.0)
    oldest = model_config.with_own_queue("dynamic_batching { }\n", deadline=4.0)
    assert oldest.count("parameters") == 2 and 'string_value: "3"' in oldest
    by_hand = FORMER.replace("REJECT", "DELAY")
    assert model_config.with_own_queue(by_hand) == by_hand, "a policy of the operator's own is theirs"
