"""Calibrators, thresholds, and the artifact that a release carries."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fake_rows import CODES, skilled
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss, precision_score, recall_score

from verdictree import Category, Policy
from verdictree.errors import InvalidRelease
from verdictree.releases import calibration as calibrations
from verdictree.releases.calibration import RANKING_SHARE, Calibrator
from verdictree.releases.decision import Decision
from verdictree_evaluation.errors import EvaluationError
from verdictree_evaluation.metrics import calibrate, calibrators
from verdictree_evaluation.metrics.thresholds import MAX_F1, Rule, choose, parse_rule

FITTERS = (calibrators.temperature, calibrators.platt, calibrators.isotonic)


def overconfident(count: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, count)
    return 1 / (1 + np.exp(-4 * z)), rng.random(count) < 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("fitter", FITTERS)
def test_calibrators_are_strictly_increasing(fitter):
    """A calibrator that reorders or ties scores: ranking must never change."""
    calibrator = fitter(*overconfident())
    scores = calibrator(np.concatenate([[0.0, 1e-12, 1e-9], np.linspace(1e-6, 1 - 1e-6, 500), [1.0]]))
    assert calibrator.fault() is None
    assert (np.diff(scores) > 0).all() and scores.min() >= 0 and scores.max() <= 1


@pytest.mark.parametrize("fitter", FITTERS)
def test_calibrators_improve_log_loss(fitter):
    """A fit on the wrong scale, which would leave an overconfident score as it is."""
    calibrator = fitter(*overconfident())
    scores, truth = overconfident(seed=1)
    assert log_loss(truth, calibrator(scores)) < log_loss(truth, scores) - 0.05


def test_apply_equals_scikit_learn():
    """Numpy steps that drift from the fitted ones, between knots and outside of them."""
    scores, truth = overconfident()
    calibrator = calibrators.isotonic(scores, truth)
    margin = 1 / (len(scores) + 2)
    model = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip").fit(scores, truth)
    points = np.linspace(0, 1, 333)
    expected = (1 - RANKING_SHARE) * model.predict(points) + RANKING_SHARE * points
    assert calibrator(points) == pytest.approx(expected, abs=1e-12)


def test_the_least_log_loss_wins():
    """Always choosing the most flexible calibrator: a calibrated score stays nearly as it is."""
    rng = np.random.default_rng(0)
    scores = rng.random(2000)
    fit = calibrators.fit(scores, rng.random(2000) < scores)
    assert fit.losses[fit.calibrator.method] == min(fit.losses.values())
    assert fit.calibrator(scores) == pytest.approx(scores, abs=0.05)
    assert calibrators.fit(*overconfident()).calibrator.method != "none"


def test_scores_that_rank_backwards_are_not_turned_round():
    """A falling calibrator where a guard is worse than chance."""
    scores, truth = overconfident()
    fit = calibrators.fit(scores, ~truth)
    assert set(fit.losses) == {"none", "isotonic"} and fit.calibrator.fault() is None


@pytest.mark.parametrize("positives", [0, 1, 19])
def test_too_few_positives(positives):
    """A calibrator fitted on a handful of rows; the reason must name the number."""
    truth = np.arange(200) < positives
    fit = calibrators.fit(np.linspace(1, 0, 200), truth)
    assert fit.calibrator == Calibrator() and f"{positives} positives, at least 20" in fit.note


def test_separable_scores_stay_finite():
    """An infinite slope where a score tells the classes apart without error."""
    scores = np.concatenate([np.full(50, 0.9), np.full(50, 0.1)])
    for fitter in FITTERS:
        calibrator = fitter(scores, scores > 0.5)
        assert calibrator.fault() is None and 0 < calibrator(0.1) < calibrator(0.9) < 1


@pytest.mark.parametrize("target", [0.3, 0.7, 0.95])
def test_thresholds_reach_their_target(target):
    """The threshold beside the right one: `>=` at it must reach the target, the next one not better."""
    scores, truth = overconfident()
    at = {kind: choose(Rule(kind, target), scores, truth)[0] for kind in ("precision", "recall", "fpr")}
    assert recall_score(truth, scores >= at["recall"]) >= target > recall_score(truth, scores > at["recall"])
    assert (scores[~truth] >= at["fpr"]).mean() <= target
    lower = scores[scores < at["fpr"]].max()
    assert (scores[~truth] >= lower).mean() > target
    if target < 0.95:
        assert precision_score(truth, scores >= at["precision"]) >= target


def test_max_f1_is_the_highest():
    """A curve read off by one."""
    scores, truth = overconfident(60)
    threshold, _ = choose(MAX_F1, scores, truth)

    def f1(t):
        return 2 * ((scores >= t) & truth).sum() / ((scores >= t).sum() + truth.sum())

    assert f1(threshold) == pytest.approx(max(f1(t) for t in np.sort(scores)[1:]))


def test_targets_out_of_reach_are_told():
    """A threshold that silently misses what was asked for."""
    scores, truth = np.array([0.9, 0.8, 0.1]), np.array([False, True, True])
    assert "out of reach" in choose(Rule("precision", 0.99), scores, truth)[1]
    threshold, note = choose(Rule("fpr", 0.0), scores, truth)
    assert threshold > 0.9 and "out of reach" in note
    assert "all scores are the same" in choose(MAX_F1, np.zeros(3), truth)[1]
    assert choose(MAX_F1, scores, np.zeros(3, dtype=bool))[0] == 0.2


def test_rules_are_read():
    """A rule that means something else than it says."""
    assert parse_rule("max-f1") == (None, MAX_F1)
    assert parse_rule("fixed") == (None, Rule("fixed", 0.2))
    assert parse_rule("S1:recall=0.95") == ("S1", Rule("recall", 0.95))
    for bad in ("max-f1=1", "recall", "fpr=2", "f1", "S1:", "precision=x"):
        with pytest.raises(EvaluationError, match="expected max-f1"):
            parse_rule(bad)


class FakeRelease:
    number, guard_sha256 = 3, "guard"
    policies = (Policy("p", "1", tuple(Category(code, code) for code in CODES)),)


@pytest.fixture(scope="module")
def fitted():
    return calibrate.fit(skilled(400, sharpness=3.0), calibrate.Plan(rules={"S10": Rule("recall", 0.9)}))


@pytest.fixture
def artifact(fitted, tmp_path):
    (tmp_path / "release.json").write_text("{}")
    manifest = calibrations.sha256(tmp_path / "release.json")
    made = calibrate.artifact(
        fitted, calibrate.Plan(), version="3.1", release=FakeRelease(), policy="p", manifest_sha256=manifest, data={}
    )
    calibrations.save({"p": made}, tmp_path)
    return made


def test_artifact_round_trip(artifact, tmp_path):
    """Parameters that lose digits on disk: served scores would differ from the fitted ones."""
    loaded = calibrations.load(tmp_path, FakeRelease())
    assert loaded == {"p": artifact}
    decision = Decision(FakeRelease.policies[0], artifact)
    scores = decision.scores(np.array([[0.1, 0.5, 0.9]]))
    assert scores.shape == decision.flags(scores).shape == (1, 3)
    assert scores[0, 2] == artifact.categories[2].calibrator(0.9)
    assert calibrations.load(tmp_path / "..", FakeRelease()) == {}
    assert calibrate.next_version(3, artifact) == "3.2" and calibrate.next_version(3, None) == "3.1"


def test_damaged_artifacts_are_refused(artifact, tmp_path):
    """A damaged calibration being served, or left out silently: both change every flag."""
    path = tmp_path / calibrations.CALIBRATION
    whole = path.read_bytes()
    other = json.loads(whole)
    other["calibrations"]["p"]["unsafe"]["threshold"] = 0.0
    for damaged in (whole[:-40], b"", b"{}", json.dumps(other).encode(), whole.replace(b'"3.1"', b'"3.2"')):
        path.write_bytes(damaged)
        with pytest.raises(InvalidRelease, match=r"damaged.*calibrate"):
            calibrations.load(tmp_path, FakeRelease())


def test_an_artifact_of_another_release_is_refused(artifact, tmp_path):
    """The calibration of the release that lay there before an export."""
    (tmp_path / "release.json").write_text('{"new": 1}')
    with pytest.raises(InvalidRelease, match="made for another release"):
        calibrations.load(tmp_path, FakeRelease())


def test_a_calibration_follows_its_guard_alone(artifact, tmp_path):
    """The shipped calibration landing on another guard, whose scores mean something else."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "release.json").write_text('{"new": 1}')
    path, exported_again = tmp_path / calibrations.CALIBRATION, FakeRelease()
    exported_again.number = 7
    calibrations.rebind(calibrations.read_for(path, exported_again), exported_again, other)
    assert calibrations.load(other, exported_again)["p"].categories == artifact.categories
    exported_again.guard_sha256 = "another"
    with pytest.raises(InvalidRelease, match="made for another guard"):
        calibrations.read_for(path, exported_again)


def test_a_falling_calibrator_is_refused(artifact, tmp_path):
    """An artifact, written by hand, that turns the ranking round."""
    import msgspec

    falling = msgspec.structs.replace(artifact.unsafe, calibrator=Calibrator("platt", slope=-1.0))
    calibrations.save({"p": msgspec.structs.replace(artifact, unsafe=falling)}, tmp_path)
    with pytest.raises(InvalidRelease, match="not positive"):
        calibrations.load(tmp_path, FakeRelease())


def test_calibrating_a_code_that_is_not_there():
    """A threshold rule with a misspelt code being ignored."""
    with pytest.raises(EvaluationError, match="got S99"):
        calibrate.fit(skilled(40), calibrate.Plan(rules={"S99": MAX_F1}))


def test_an_artifact_of_another_policy_is_refused(artifact, tmp_path):
    """One tenant's calibration being applied to another tenant's scores."""
    import msgspec

    for name, made in [("q", artifact), ("p", msgspec.structs.replace(artifact, policy="q"))]:
        calibrations.save({name: made}, tmp_path)
        with pytest.raises(InvalidRelease, match="categories of a policy of release 3"):
            calibrations.load(tmp_path, FakeRelease())


def test_a_category_that_the_policy_leaves_raw():
    """`calibrated: false` being ignored: the analyst wants the guard's own number, and its threshold."""
    rows = skilled(400, sharpness=3.0)
    found = calibrate.fit(rows, calibrate.Plan(raw=frozenset({"S2"})))
    assert [one.calibrator.method == "none" for one in found.categories] == [False, True, False]
    assert "policy leaves it uncalibrated" in found.categories[1].note
