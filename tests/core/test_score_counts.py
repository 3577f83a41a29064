"""Counts of scores in a calibration: what follows from them is what follows from the rows."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from verdictree.errors import InvalidRelease
from verdictree.releases import calibration as calibrations
from verdictree.releases.calibration import Calibration, Calibrator, Outcome
from verdictree.releases.release import Release, sha256
from verdictree.releases.score_counts import EDGES, ScoreCounts

OLD = Path(__file__).parents[1] / "old_releases" / "format_1" / "guard_marginals" / "1"


def rows(seed: int = 0, count: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and whether each row has it; some scores stand on the edges."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.2
    scores = np.where(truth, rng.beta(4, 2, count), rng.beta(0.4, 4, count))
    scores[::5] = rng.choice(EDGES, len(scores[::5]))
    scores[:2] = 0.0, 1.0
    return scores, truth


@pytest.mark.parametrize("place", range(0, len(EDGES), 7))
def test_a_thresholds_outcome_is_that_of_the_rows(place):
    """A score on the threshold counts as below it: the page promises other alerts than the server rings."""
    scores, truth = rows()
    counts, flagged = ScoreCounts.of(scores, truth), scores >= EDGES[place]
    positives, negatives = sum(counts.positives[place:]), sum(counts.negatives[place:])
    assert positives + negatives == flagged.sum()
    assert positives / truth.sum() == pytest.approx(recall_score(truth, flagged))
    assert positives / (positives + negatives) == pytest.approx(precision_score(truth, flagged))


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.98765, 0.9987, 1.0, 7.0])
def test_a_threshold_between_the_edges_is_counted_as_it_is(threshold):
    """Isotonic scores crowd at 0.9987, and the threshold stands at 0.9982: the page says that nothing reaches it."""
    scores, truth = rows(2)
    scores[:200] = 0.9987
    counts = ScoreCounts.of(scores, truth, threshold)
    place = next((place for place, edge in enumerate(counts.edges) if edge >= threshold), len(counts.edges))
    assert sum(counts.positives[place:]) == (truth & (scores >= threshold)).sum()
    assert counts.fault(int(truth.sum()), int((~truth).sum())) is None


def test_coarser_buckets_hold_the_same_rows():
    """A row is lost, or counted twice, where buckets are put together."""
    scores, truth = rows(1)
    bounds = (0.1, 0.5, 0.97)
    expected, _ = np.histogram(scores, (0.0, *bounds, 1.0))
    assert ScoreCounts.of(scores, truth).within(bounds).tolist() == expected.tolist()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A release's folder of guard_marginals, without a calibration."""
    shutil.copy(OLD / "release.json", tmp_path)
    return tmp_path


def calibrated(folder: Path, counts: ScoreCounts | None, num_positives: int = 140) -> Release:
    """Write a calibration into the folder, each score with these counts."""
    release = Release.load(folder)
    outcomes = [Outcome(code, Calibrator(), 0.5, "r", num_positives, 560, "", counts) for code in release.policy.codes]
    fitted = Calibration(
        version="1.1",
        created="",
        release=release.number,
        policy=release.policy.name,
        manifest_sha256=sha256(folder / "release.json"),
        guard_sha256=release.guard_sha256,
        data={},
        unlabelled="masked",
        unsafe=Outcome("unsafe", Calibrator(), 0.5, "r", num_positives, 560, "", counts),
        categories=tuple(outcomes),
    )
    calibrations.save({release.policy.name: fitted}, folder)
    return release


COUNTS = ScoreCounts.of(np.linspace(0, 1, 700), np.arange(700) % 5 == 0)


@pytest.mark.parametrize("counts", [COUNTS, None], ids=["counts", "none"])
def test_they_come_back_and_a_calibration_without_them_is_read(folder, counts):
    """A calibration from before they were kept is refused, and its release no longer loads."""
    release = calibrated(folder, counts)
    (found,) = calibrations.load(folder, release).values()
    assert found.unsafe.scores == counts and all(one.scores == counts for one in found.categories)


def test_a_file_of_the_first_format_is_read(folder):
    """A release that was calibrated by an older version no longer loads."""
    calibrated(folder, None)
    path = folder / calibrations.CALIBRATION
    sealed = json.loads(path.read_text())
    for one in sealed["calibrations"].values():
        for outcome in (one["unsafe"], *one["categories"]):
            del outcome["scores"]
    old = json.dumps(sealed["calibrations"], separators=(",", ":"))
    path.write_text(f'{{"sha256":"{hashlib.sha256(old.encode()).hexdigest()}","calibrations":{old}}}')
    (found,) = calibrations.load(folder, Release.load(folder)).values()
    assert found.unsafe.scores is None and found.unsafe.threshold == 0.5


@pytest.mark.parametrize(
    "counts",
    [
        ScoreCounts(EDGES, COUNTS.positives[1:], COUNTS.negatives),
        ScoreCounts(EDGES, (), ()),
        ScoreCounts(EDGES, (-1, *COUNTS.positives[1:-1], COUNTS.positives[-1] + 3), COUNTS.negatives),
        ScoreCounts(EDGES, COUNTS.negatives, COUNTS.positives),
        ScoreCounts(EDGES[:-1], COUNTS.positives[1:], COUNTS.negatives[1:]),
        ScoreCounts((), (), ()),
        ScoreCounts(EDGES[::-1], COUNTS.positives, COUNTS.negatives),
        ScoreCounts((*EDGES, float("nan")), (*COUNTS.positives, 0), (*COUNTS.negatives, 0)),
    ],
)
def test_counts_of_other_rows_are_refused(folder, counts):
    """Precision and recall of nobody's rows, on a page that somebody sets thresholds by."""
    release = calibrated(folder, counts)
    with pytest.raises(
        InvalidRelease, match=r"no scores for 'unsafe': (expected counts of \d+ rows in \d+|the edges do)|is damaged"
    ):
        calibrations.load(folder, release)


def test_a_later_format_is_named(folder):
    """A file from a newer version reads as a damaged one, and somebody calibrates anew."""
    calibrated(folder, COUNTS)
    path = folder / calibrations.CALIBRATION
    sealed = json.loads(path.read_text()) | {"format": 3, "more": True}
    path.write_text(json.dumps(sealed))
    with pytest.raises(InvalidRelease, match="of format 3, this version of verdictree reads formats up to 2"):
        calibrations.read(path)
