"""Both commands on a release of the tiny guard: calibrate writes it, evaluate and the served step read it."""

from __future__ import annotations

import json
import re
import shutil

import msgspec
import pytest
import tiny_guard
from click.testing import CliRunner

from verdictree import Conversation, Message
from verdictree.errors import InvalidRelease
from verdictree.releases import calibration as calibrations
from verdictree.releases.decision import Decision
from verdictree.releases.release import COMPOSING_MODELS, MANIFEST, Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree_cli import main
from verdictree_cli.evaluate import calibrate, evaluate
from verdictree_client.rollout import releases as release_files
from verdictree_evaluation import scoring
from verdictree_export.exporter import export_release

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
    """A calibration that the release does not load, or that evaluate and it apply differently."""
    options = ("--repository", repository, "--threads", "1")
    train, test = write_rows(tmp_path / "train.csv", "a"), write_rows(tmp_path / "test.csv", "b")
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    told = invoke(calibrate, train, "--out", tmp_path / "c", *options, "--min-positives", "8", "--threshold", "fpr=0.2")
    assert "calibration 1.1" in told.output
    assert {path: path.read_bytes() for path in before} == before, "a release that may be in service stays as it is"
    (command,) = re.findall(
        r"verdictree rollout derive 1 --repository (\S+) --calibration (\S+)", told.output.replace("\n", "")
    )
    assert command == (str(repository), str(tmp_path / "c" / "calibration.json"))
    number = release_files.derive(repository, 1, tmp_path / "c" / "calibration.json", {}).number
    invoke(evaluate, test, "--out", tmp_path / "e", *options, "--release", number, "--resamples", "10")
    measured = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert "own, 2.1" in measured["calibrated_by"] and "train.csv" in measured["calibrated_by"]
    assert {"entropy", "LogTokU", "served flags"} <= {row["method"] for row in measured["views"][0]["methods"]}

    guard = LocalGuard.load(repository, number, threads=1)
    (verdict,) = guard.classify([Conversation((Message("user", "b message number 1"),))])
    calibration = guard.calibrations["tiny"]
    assert verdict.calibration == "2.1"
    decision = Decision(guard.release.policy, calibration)
    scores = decision.scores([score.marginal for score in verdict.categories])
    flags = decision.flags(scores)
    assert [score.calibrated for score in verdict.categories] == scores.tolist()
    assert [score.flagged for score in verdict.categories] == flags.tolist()
    assert verdict.unsafe_flagged == (verdict.p_unsafe_calibrated >= calibration.unsafe.threshold)
    assert verdict.flagged == (verdict.unsafe_flagged or flags.any())


def test_thresholds_of_too_few_rows_are_refused(repository, tmp_path):
    """A flag that is decided by six rows, in place of one that rested on hundreds."""
    options = ("--repository", repository, "--threads", "1", "--out", tmp_path / "c")
    few = CliRunner().invoke(main, ["calibrate", write_rows(tmp_path / "few.csv", "a"), *map(str, options)])
    assert few.exit_code == 1 and not (tmp_path / "c" / "calibration.json").exists()
    said = "expected at least 20 positives to choose a threshold on, got S1 10, S2 10, S10 10; give more rows"
    assert said in few.output and "Traceback" not in few.output
    assert "--threshold S1:fixed=0.2 --threshold S2:fixed=0.2" in few.output
    fixed = [part for code in tiny_guard.POLICY.codes for part in ("--threshold", f"{code}:fixed=0.3")]
    told = invoke(calibrate, tmp_path / "few.csv", *options, *fixed)
    assert "fixed=0.3" in told.output


def test_a_policys_own_threshold_and_its_band(repository, tmp_path):
    """A threshold that is fitted where another is served, and a band that it empties without a word."""
    models = shutil.copytree(repository, tmp_path / "m")
    release = Release.load(models / "guard_lm" / "1")
    first, *others = release.policy.categories
    categories = (msgspec.structs.replace(first, review=0.3), *others)
    banded = msgspec.structs.replace(release.policy, categories=categories, threshold=0.4, review=0.35)
    for model in COMPOSING_MODELS:
        path = models / model / "1" / MANIFEST
        path.write_bytes(msgspec.structs.replace(release, policies=(banded,)).to_json())
    train, options = write_rows(tmp_path / "train.csv", "a"), ("--repository", models, "--threads", "1")
    told = invoke(calibrate, train, "--out", tmp_path / "c", *options, "--threshold", "fixed=0.3")
    assert "note: S1: its threshold is not above the policy's review, so nothing of it will be reviewed" in told.output
    assert told.output.count("will be reviewed") == 1
    fitted = calibrations.read(tmp_path / "c" / "calibration.json")["tiny"]
    assert (fitted.unsafe.threshold, fitted.unsafe.rule) == (0.4, "fixed=0.4")
    (predicted, *_) = (tmp_path / "c" / "predictions.jsonl").read_text().splitlines()
    assert "action" not in predicted, "raw scores do not depend on thresholds"


def test_recalibrating_scores_nothing_again(repository, tmp_path, monkeypatch):
    """A calibration making all raw scores stale: they do not depend on it."""
    options = ("--repository", repository, "--threads", "1", "--min-positives", "8")
    train = write_rows(tmp_path / "train.csv", "a")
    invoke(calibrate, train, "--out", tmp_path / "c", *options)
    monkeypatch.setattr(scoring.InProcess, "_scored", lambda self, batch: pytest.fail("scored again") if batch else [])
    invoke(calibrate, train, "--out", tmp_path / "c", *options)


def test_a_conversation_that_is_too_long(repository, tmp_path):
    """One long row ending the run: it is named and left out, judged in part with --truncate head, else in windows."""
    path = tmp_path / "long.csv"
    write_rows(path, "a", 8)
    path.write_text(path.read_text() + "long," + "words " * 2000 + ",\n")
    options = ("--repository", repository, "--threads", "1", "--resamples", "2", "--out", tmp_path / "e")
    told = invoke(evaluate, path, *options)
    assert "long.csv:10: expected at most" in told.output and "8 rows of" in told.output
    assert "9 rows of" in invoke(evaluate, path, *options, "--truncate", "head").output
    told = invoke(evaluate, path, *options, "--truncate", "windows")
    assert "9 rows of" in told.output
    rows = [json.loads(line) for line in (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()]
    assert [len(row["verdict"].get("windows", ())) > 1 for row in rows[-9:]] == [False] * 8 + [True]


def test_a_damaged_calibration_is_a_load_error(repository, tmp_path):
    """Raw scores going out as if the release had never been calibrated."""
    path = shutil.copytree(repository, tmp_path / "m") / "guard_marginals" / "1" / "calibration.json"
    path.write_bytes(b"{}")
    with pytest.raises(InvalidRelease, match="damaged"):
        LocalGuard.load(tmp_path / "m", 1, threads=1)
