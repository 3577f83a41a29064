"""A run that stops goes on where it was."""

from __future__ import annotations

import msgspec
import pytest
from fake_rows import CODES, CountingGuard, row, verdict

import verdictree_client
from verdictree_client import InvalidRequest, ServerUnavailable
from verdictree_evaluation.data.arrays import gather
from verdictree_evaluation.data.predictions import PredictionStore
from verdictree_evaluation.errors import BadPredictions
from verdictree_evaluation.scoring import Served, score_all

ROWS = [row(f"r{i}") for i in range(6)]


def begin(total, done):
    return lambda: None


def run(path, guard, rows=ROWS):
    with PredictionStore(path) as store:
        return score_all(guard, rows, store, begin)


def test_resume_scores_nothing_twice(tmp_path):
    """A killed run losing what it scored, or scoring it again."""
    path = tmp_path / "predictions.jsonl"
    first, second = CountingGuard(stop_after=4), CountingGuard()
    with pytest.raises(KeyboardInterrupt):
        run(path, first)
    found = run(path, second)
    assert first.asked + second.asked == [one.id for one in found] == [one.id for one in ROWS]


def test_a_half_written_line_is_scored_again(tmp_path):
    """A file that stops mid-line making the run fail, or gluing the next line to it."""
    path = tmp_path / "predictions.jsonl"
    run(path, CountingGuard(), ROWS[:3])
    path.write_bytes(path.read_bytes()[:-20])
    guard = CountingGuard()
    run(path, guard)
    assert guard.asked == ["r2", "r3", "r4", "r5"]
    assert len(path.read_bytes().splitlines()) == 6
    assert run(path, CountingGuard(stop_after=0))


def test_another_release_or_text_is_scored_anew(tmp_path):
    """Verdicts of an older release, or of another text under the same id, being taken for this one's."""
    path = tmp_path / "predictions.jsonl"
    run(path, CountingGuard())
    other, changed = CountingGuard(release="other"), CountingGuard()
    run(path, other)
    run(path, changed, [row("r0", text="another text"), *ROWS[1:]])
    assert len(other.asked) == 6 and changed.asked == ["r0"]


def test_a_damaged_line_is_named(tmp_path):
    """Half of the predictions being dropped silently because a line in the middle is damaged."""
    path = tmp_path / "predictions.jsonl"
    path.write_text("nonsense\n")
    with pytest.raises(BadPredictions, match=r"predictions\.jsonl:1"):
        PredictionStore(path)


class FakeClient:
    """A server's client that answers each row with a verdict, or with the error that `failures` has for its id."""

    failures: dict[str, Exception] = {}  # noqa: RUF012 - one for all of a test's clients
    calibration: str | None = None

    def __init__(self, url, deadline):
        self._answer = msgspec.structs.replace(verdict((0.1, 0.2, 0.3)), calibration=self.calibration)

    def classify(self, text, policy=None):
        return self._answer

    def classify_many(self, items, concurrency, return_errors):
        for item in items:
            yield self.failures.get(item.messages[0].content.split()[-1], self._answer)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(verdictree_client, "GuardClient", FakeClient)
    monkeypatch.setattr(FakeClient, "failures", {})
    return FakeClient


def test_a_servers_refusal_is_no_verdict(server, tmp_path):
    """A refused row counting as safe, or ending the run."""
    server.failures = {"r2": InvalidRequest("expected at most 9 tokens, got 10")}
    found = run(tmp_path / "p.jsonl", Served("host:1"))
    assert found[2].error == "expected at most 9 tokens, got 10"
    assert [one.id for one in gather(ROWS, found, CODES).rows] == ["r0", "r1", "r3", "r4", "r5"]


def test_a_failing_server_stops_the_run_and_loses_nothing(server, tmp_path):
    """An outage being recorded as errors of the rows, or what was scored before it being lost."""
    server.failures = {"r3": ServerUnavailable("gone")}
    path = tmp_path / "p.jsonl"
    with pytest.raises(ServerUnavailable):
        run(path, Served("host:1"))
    assert len(path.read_bytes().splitlines()) == 3
    server.failures = {}
    assert all(one.verdict for one in run(path, Served("host:1")))


def test_a_servers_calibration_is_part_of_the_key(server, monkeypatch):
    """Calibrated scores of an older calibration being taken for the server's present ones."""
    before = Served("host:1").release
    monkeypatch.setattr(server, "calibration", "1.2")
    assert Served("host:1").release != before
