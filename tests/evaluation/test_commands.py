"""Both commands on a release of the tiny guard: calibrate writes it, evaluate and the served step read it."""

from __future__ import annotations

import json

import pytest
import tiny_guard
from click.testing import CliRunner

from verdictree import Conversation, Message
from verdictree.errors import InvalidRelease
from verdictree_evaluation import scoring
from verdictree_evaluation.commands import calibrate, evaluate
from verdictree_export.exporter import export_release
from verdictree_serving.offline import OfflineGuard

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    checkpoint = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("tiny-guard"))
    export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], path, max_off_grammar=1.0)
    return path


def write_rows(path, prefix, count=60):
    codes = tiny_guard.POLICY.codes
    lines = ["id,text,labels"]
    lines += [f"{prefix}{i},{prefix} message number {i},{codes[i % 3] if i % 2 else ''}" for i in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def invoke(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_calibrate_then_evaluate(repository, tmp_path):
    """Guards against a calibration that the release does not load, or that evaluate and it apply differently."""
    options = ("--repository", repository, "--threads", "1")
    train, test = write_rows(tmp_path / "train.csv", "a"), write_rows(tmp_path / "test.csv", "b")
    told = invoke(calibrate, train, "--out", tmp_path / "c", *options, "--min-positives", "8", "--threshold", "fpr=0.2")
    assert "calibration 1.1" in told.output
    invoke(evaluate, test, "--out", tmp_path / "e", *options, "--resamples", "10")
    measured = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert "own, 1.1" in measured["calibrated_by"] and "train.csv" in measured["calibrated_by"]
    assert {"entropy", "LogTokU", "served flags"} <= {row["method"] for row in measured["views"][0]["methods"]}

    guard = OfflineGuard(repository, 1, threads=1)
    (verdict,) = guard.classify([Conversation((Message("user", "b message number 1"),))])
    calibration = guard.calibrations["tiny"]
    assert verdict.calibration == "1.1"
    scores, flags = calibration.apply([score.marginal for score in verdict.categories])
    assert [score.calibrated for score in verdict.categories] == scores.tolist()
    assert [score.flagged for score in verdict.categories] == flags.tolist()
    assert verdict.flagged == (verdict.p_unsafe_calibrated >= calibration.unsafe.threshold)


def test_recalibrating_scores_nothing_again(repository, tmp_path, monkeypatch):
    """Guards against a calibration making all raw scores stale: they do not depend on it."""
    options = ("--repository", repository, "--threads", "1", "--min-positives", "8")
    train = write_rows(tmp_path / "train.csv", "a")
    invoke(calibrate, train, "--out", tmp_path / "c", *options)
    monkeypatch.setattr(scoring.InProcess, "_scored", lambda self, batch: pytest.fail("scored again") if batch else [])
    invoke(calibrate, train, "--out", tmp_path / "c", *options)


def test_a_conversation_that_is_too_long(repository, tmp_path):
    """Guards against one long row ending the run: it is named and left out, and judged in part with --truncate."""
    path = tmp_path / "long.csv"
    write_rows(path, "a", 8)
    path.write_text(path.read_text() + "long," + "words " * 2000 + ",\n")
    options = ("--repository", repository, "--threads", "1", "--resamples", "2", "--out", tmp_path / "e")
    told = invoke(evaluate, path, *options)
    assert "long.csv:10: expected at most" in told.output and "8 rows of" in told.output
    assert "9 rows of" in invoke(evaluate, path, *options, "--truncate").output


def test_a_damaged_calibration_is_a_load_error(repository):
    """Guards against raw scores going out as if the release had never been calibrated."""
    path = repository / "guard_marginals" / "1" / "calibration.json"
    path.write_bytes(b"{}")
    with pytest.raises(InvalidRelease, match="damaged"):
        OfflineGuard(repository, 1, threads=1)
