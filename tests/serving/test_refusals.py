"""Refusals that are delayed, and the gate that refuses."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from verdictree_serving.gate import GATE_VARIABLE, Gate
from verdictree_serving.triton_steps.refusals import Refusals


def test_who_is_refused_again_and_again_waits_longer() -> None:
    """A client that sends nothing but refusable requests, one after another, takes the machine from the others."""
    refusals, sent = Refusals(), []
    begin = time.monotonic()
    for number in range(5):
        answered = threading.Event()

        def send(number: int = number, answered: threading.Event = answered) -> None:
            sent.append(number)
            answered.set()

        refusals.offer(send, seconds=0.002, num_bytes=0)
        assert answered.wait(5)
    assert sent == [0, 1, 2, 3, 4]
    assert time.monotonic() - begin >= 5 * 0.002 * 20 * 0.9
    refusals.close()


def test_no_refusal_waits_without_end_or_is_lost() -> None:
    """Whoever is refused after many others waits for minutes, or for ever."""
    refusals, sent = Refusals(), threading.Semaphore(0)
    begin = time.monotonic()
    for _ in range(1000):
        refusals.offer(sent.release, seconds=1.0, num_bytes=1 << 20)
    for _ in range(1000):
        assert sent.acquire(timeout=5)
    assert time.monotonic() - begin < 3
    refusals.close()


def test_closing_sends_what_waits() -> None:
    """A step that ends leaves its callers without an answer."""
    refusals, sent = Refusals(), []
    refusals.offer(lambda: sent.append(1), seconds=0.04, num_bytes=0)
    refusals.close()
    refusals.offer(lambda: sent.append(2), seconds=0.04, num_bytes=0)
    assert sent == [1, 2]


def test_a_gate_says_why_it_is_closed(tmp_path: Path, monkeypatch) -> None:
    """Callers are refused without a reason, or let in by a gate that was closed meanwhile."""
    monkeypatch.setenv(GATE_VARIABLE, str(tmp_path / "closed"))
    gate, step = Gate(tmp_path / "closed"), Gate.of_environment()
    assert step.reason() is None
    gate.close("damaged")
    gate.close("draining")
    assert step.reason() == "draining"
    gate.open()
    gate.open()
    assert step.reason() is None
    monkeypatch.delenv(GATE_VARIABLE)
    unsupervised = Gate.of_environment()
    unsupervised.close("never")
    assert unsupervised.reason() is None
