"""The page's thresholds: what it says of counts is what the rows say, in a real browser on a real gateway."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import browser
import devtools
import numpy as np
import pytest
import tiny_guard
from devtools import Tab
from second_gateway import gateway
from sklearn.metrics import precision_score, recall_score

from verdictree.releases.calibration import Calibrator, Outcome
from verdictree.releases.score_counts import EDGES, ScoreCounts

pytestmark = pytest.mark.server
CODES = ("unsafe", "S1", "S2", "S10")
THRESHOLD = 0.3217
ROWS = 500
STOPS = sorted({*EDGES, THRESHOLD})


def rows(code: str) -> tuple[np.ndarray, np.ndarray]:
    """A score of each row, and whether the row has it."""
    rng = np.random.default_rng(CODES.index(code))
    truth = rng.random(ROWS) < 0.2
    return np.where(truth, rng.beta(4, 3, ROWS), rng.beta(0.5, 4, ROWS)), truth


@pytest.fixture(scope="module")
def calibrated(release, tmp_path_factory) -> Path:
    """The same release with a calibration of its policy."""
    repository = tmp_path_factory.mktemp("calibrated") / "models"
    shutil.copytree(release, repository)
    outcomes = []
    for code in CODES:
        scores, truth = rows(code)
        counts = ScoreCounts.of(scores, truth, THRESHOLD)
        numbers = int(truth.sum()), int((~truth).sum())
        outcomes.append(Outcome(code, Calibrator(), THRESHOLD, "max-f1", *numbers, "", counts))
    tiny_guard.calibrate(repository, "tiny", outcomes)
    return repository


@pytest.fixture(scope="module")
def origin(server, calibrated) -> Iterator[str]:
    """A gateway that knows the calibrated release."""
    with gateway(server, "--repository", str(calibrated)) as address:
        yield address


@pytest.fixture
def tab(tmp_path) -> Iterator[Tab]:
    with devtools.opened(tmp_path / "profile") as found:
        yield found


def opened(tab: Tab, address: str, **window) -> None:
    tab.open(f"{address}/", **window)
    tab.wait("document.querySelectorAll('#policy option').length > 1")
    tab.run("document.querySelector('#thresholds > summary').click()")
    tab.wait("document.querySelector('#sliders').children.length")


def move(tab: Tab, code: str, **fields: float) -> list[float]:
    """Move a row's slider to a place, or write its base rate; then its precision, recall and alerts per 1,000."""
    for kind, value in fields.items():
        script = f"""(() => {{
            const field = document.querySelector('tr[data-code="{code}"] input[type="{kind}"]');
            field.value = {value};
            field.dispatchEvent(new Event("input"));
        }})()"""
        tab.run(script)
    cells = f"""[...document.querySelectorAll('.sliders tr[data-code="{code}"] td > b')]"""
    return tab.run(f"{cells}.map((one) => Number(one.textContent))")


@browser.needed
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("threshold", [0.01, 0.22, THRESHOLD, 0.5, 0.7])
def test_what_a_slider_says_is_what_the_rows_say(origin, tab, code, threshold):
    """An analyst sets a threshold by numbers of other rows, or of the wrong side of it."""
    opened(tab, origin)
    scores, truth = rows(code)
    flagged = scores >= threshold
    precision, recall, alerts = move(tab, code, range=STOPS.index(threshold), number=1000 * truth.mean())
    assert precision == pytest.approx(precision_score(truth, flagged), abs=6e-4)
    assert recall == pytest.approx(recall_score(truth, flagged), abs=6e-4)
    assert alerts == pytest.approx(1000 * flagged.mean(), abs=0.06)
    assert tab.said == []


@browser.needed
def test_the_base_rate_weighs_the_rows(origin, tab):
    """Rows are a fifth positives, traffic a thousandth: the alerts of the rows would promise a precision of 0.9."""
    opened(tab, origin)
    scores, truth = rows("S1")
    flagged = scores >= 0.5
    found = move(tab, "S1", range=STOPS.index(0.5), number=2)
    weights = np.where(truth, 0.002 / truth.sum(), 0.998 / (~truth).sum())
    expected = [
        precision_score(truth, flagged, sample_weight=weights),
        recall_score(truth, flagged),
        1000 * weights[flagged].sum(),
    ]
    assert found == pytest.approx(expected, abs=0.06)
    assert found[0] == pytest.approx(expected[0], abs=6e-4)


@browser.needed
def test_sliders_begin_at_what_is_served_and_go_back_to_it(origin, tab):
    """A page that shows another threshold than the server's, and loses the way back."""
    opened(tab, origin)
    places = "[...document.querySelectorAll('.sliders output')].map((one) => one.textContent)"
    assert tab.run(places) == ["0.3217"] * len(CODES)
    move(tab, "S2", range=0)
    assert tab.run(places)[2] == "0"
    tab.run("document.querySelector('#sliders > button').click()")
    assert tab.run(places) == ["0.3217"] * len(CODES)
    spoken = "document.querySelector('.sliders input[type=range]').getAttribute('aria-valuetext')"
    assert tab.run(spoken) == "0.3217"
    unnamed = "[...document.querySelectorAll('.sliders input')].filter((one) => !one.ariaLabel).length"
    assert tab.run(unnamed) == 0


@browser.needed
@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (375, "dark"), (820, "light"), (1280, "dark")])
def test_sliders_fit_the_screen(origin, tab, width, scheme):
    """On a phone the numbers stand outside of the window."""
    opened(tab, origin, width=width, scheme=scheme)
    assert tab.run("document.documentElement.scrollWidth") <= width


@browser.needed
def test_a_release_without_scores_says_so(server, tab):
    """An empty place where somebody looks for numbers."""
    opened(tab, f"http://{server.said['http']}")
    said = tab.run("document.querySelector('#sliders .note').textContent")
    assert "Refused (404): release 1 holds no scores of labelled rows" in said and "verdictree calibrate" in said


def test_scores_are_answered_as_described(origin, calibrated):
    """Counts under other categories' codes, or those of a policy that the caller may not ask by."""
    with urllib.request.urlopen(f"{origin}/v1/scores?policy=tiny") as found:
        answer = json.load(found)
    assert [one["code"] for one in answer["scores"]] == list(CODES)
    for one in answer["scores"]:
        counts = ScoreCounts.of(*rows(one["code"]), THRESHOLD)
        assert one["edges"] == STOPS
        assert one["positives"] == list(counts.positives) and one["negatives"] == list(counts.negatives)
        assert one["threshold"] == THRESHOLD and one["review"] is None
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{origin}/v1/scores?policy=other")
