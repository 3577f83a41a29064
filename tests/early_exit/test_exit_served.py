"""An early exit on a real server, behind its gateway."""

from __future__ import annotations

import re
import shutil
import signal
import time

import pytest
from exit_guard import LAYER, conversations
from supervised import Served

from verdictree.runtime.local_guard import LocalGuard
from verdictree_client import GuardClient

pytestmark = [pytest.mark.server, pytest.mark.slow]
SHOWN = conversations(40, 21) + conversations(20, 22, "assistant")


@pytest.fixture(scope="module")
def served(pair):
    one = Served(pair.path, "--exit-check-share", "1", "--exit-max-missed", "1").wait_ready()
    yield one
    one.end()


def counted(served, pattern: str) -> float:
    text = served.get("/metrics")[1]
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(pattern, line))


def test_served_verdicts_are_those_offline(pair, served):
    """Through both ports of the gateway, and to Triton by the same ensemble; those that left among them."""
    guard = LocalGuard.load(pair.path, 1, threads=1)
    expected = [guard.classify([one])[0] for one in SHOWN]
    with GuardClient(served.said["grpc"]) as client:
        answers = list(client.classify_many(SHOWN))
        exact = [client.classify(one, exact=True) for one in SHOWN[:8]]
    for answer, offline in zip(answers, expected, strict=True):
        assert answer.exit_layer == offline.exit_layer
        assert answer.p_unsafe == pytest.approx(offline.p_unsafe, abs=1e-6)
        assert (answer.flagged, answer.action) == (offline.flagged, offline.action)
    assert {one.exit_layer for one in answers} == {None, LAYER}
    assert {one.exit_layer for one in exact} == {None}


def test_what_left_is_judged_in_full_afterwards(served):
    with GuardClient(served.said["grpc"]) as client:
        left = sum(one.exit_layer is not None for one in client.classify_many(SHOWN))
    assert left
    deadline = time.monotonic() + 20
    judged = "verdictree_exit_checks_total.outcome=.(agreed|missed)"
    while not (counted(served, judged) and counted(served, "verdictree_exited_total") >= left):
        assert time.monotonic() < deadline, served.get("/metrics")[1]
        time.sleep(0.2)
    assert counted(served, "verdictree_exit_off") == 0


def test_exits_end_when_too_much_is_missed(pair, tmp_path):
    """With nothing allowed to be missed the first missed alert ends them, for good and with a line in the journal."""
    models = shutil.copytree(pair.path, tmp_path / "models")  # one server on a repository
    served = Served(models, "--exit-check-share", "1", "--exit-max-missed", "0").wait_ready()
    try:
        with GuardClient(served.said["grpc"]) as client:
            deadline = time.monotonic() + 60
            while not counted(served, "verdictree_exit_off") and time.monotonic() < deadline:
                list(client.classify_many(conversations(60, 23)))
                time.sleep(0.6)
            assert counted(served, "verdictree_exit_off") == 1
            time.sleep(1.2)
            assert {one.exit_layer for one in client.classify_many(SHOWN)} == {None}
    finally:
        served.end(signal.SIGTERM)
    journal = (models / ".rollout" / "journal.jsonl").read_text()
    assert "early-exit off" in journal and "of alerts left early" in journal
