"""The figures: what is masked, and the fast weighted forms against scikit-learn."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from fake_rows import CODES, row, scored, skilled
from sklearn.metrics import average_precision_score, roc_auc_score

from verdictree_evaluation.metrics import breakdowns, evaluate, metrics, resampling
from verdictree_evaluation.metrics.decisions import Method, methods
from verdictree_evaluation.metrics.thresholds import PAPER_THRESHOLD
from verdictree_evaluation.reports import report


def test_unlabelled_categories_are_masked():
    """Counting what a targeted or composed row says nothing of as a negative."""
    kinds = [("targeted", ("S1",)), ("composed", ("S1", "S10")), ("safe", ()), ("complete", ("S2",))]
    data = scored([row(kind, labels, kind) for kind, labels in kinds], np.zeros((4, 3)))
    assert data.known.tolist() == [[True, False, False], [True, False, True], [True] * 3, [True] * 3]
    assert data.closed().known.all() and not data.known.all()


def test_masked_entries_change_no_figure():
    """A figure that looks at unlabelled entries: theirs may be anything."""
    rows = [row("a", ("S1",)), row("b", ("S2",)), row("c"), row("d", ("S1", "S2"), "composed")]
    scores = np.random.default_rng(0).random((4, 3))
    data = scored(rows, scores, p_unsafe=np.full(4, 0.5))
    noisy = np.where(data.known, scores, 1.0 - scores)

    def figures(values):
        flags = {"fixed": values >= PAPER_THRESHOLD}
        found = metrics.figures(data, Method("m", values, flags))
        return {name: value for name, value in found.items() if "FPR" not in name}  # that one ranks whole rows

    assert figures(scores) == figures(noisy)


def test_weighted_figures_equal_scikit_learns():
    """Bootstrap intervals around another figure than the one that they stand beside."""
    data = skilled(300)
    unit = np.ones(len(data))
    for method in methods(data, None):
        fast = {name: statistic(unit) for name, statistic in resampling.statistics(data, method).items()}
        assert fast == pytest.approx(metrics.figures(data, method), nan_ok=True)
    fast = {name: statistic(unit) for name, statistic in resampling.unsafe_statistics(data, data.p_unsafe).items()}
    assert fast == pytest.approx(metrics.unsafe_figures(data, data.p_unsafe))


def test_weights_are_repeated_rows():
    """A resample that weighs entries or ties wrongly: it must equal scikit-learn with sample_weight."""
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 5, 80) / 5, rng.random(80) < 0.4
    weights = resampling.resamples(80, 1, seed=3)[0]
    ranking = resampling.Ranking(scores, truth)
    assert ranking.roc_auc(weights) == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights))
    expected = average_precision_score(truth, scores, sample_weight=weights)
    assert ranking.average_precision(weights) == pytest.approx(expected)


def test_ece_by_hand():
    """A binning or an averaging other than the one that the report states."""
    scores, truth = np.array([0.01, 0.02, 0.5, 1.0]), np.array([False, True, True, True])
    gaps = [abs(1 - 0.03), abs(1 - 0.5), 0.0]
    assert metrics.ece(scores, truth) == pytest.approx(sum(gaps) / 4)


def test_false_positive_rate_at_recall():
    """The recall being reached on the wrong side of the threshold."""
    scores = np.array([*np.linspace(0.5, 0.95, 10), 0.52, 0.56, 0.1])
    truth = np.array([True] * 10 + [False] * 3)
    assert metrics.fpr_at_recall(scores, truth) == pytest.approx(1 / 3)


def test_paired_differences():
    """A difference whose sign is turned round, or whose interval ignores that both saw the same rows."""
    data = skilled(200)
    view = evaluate.views(data, None)[0]
    found = evaluate.measure(view, 100, seed=0)
    table = {one["method"]: one["figures"] for one in found["methods"]}
    halves = next(one for one in found["differences"] if one["minus"] == "joint")["figures"]
    brier = halves["Brier"]
    assert brier["value"] == pytest.approx(table["marginal"]["Brier"]["value"] - table["joint"]["Brier"]["value"])
    assert brier["interval"][0] <= brier["value"] <= brier["interval"][1]
    same_ranking = halves["micro ROC-AUC"]  # the fake's joint is half of its marginal
    assert same_ranking["value"] == pytest.approx(0) and same_ranking["interval"] == pytest.approx((0, 0))


def test_cross_fitting_judges_other_rows():
    """Thresholds that were tuned on the rows that they judge: noise would look like skill."""
    rng = np.random.default_rng(0)
    rows = [row(f"r{i}", (CODES[i % 3],) if i % 2 else (), "complete" if i % 2 else "safe") for i in range(60)]
    data = scored(rows, rng.random((60, 3)))
    marginal = next(one for one in methods(data, None) if one.name == "marginal")
    tuned_on_itself = next(one for one in methods(data, data) if one.name == "marginal")
    crossed = metrics.figures(data, marginal)["micro-F1 @ per category"]
    flattering = metrics.figures(data, tuned_on_itself)["micro-F1 @ per category"]
    assert crossed is not None and flattering is not None and crossed < flattering


def test_views():
    """A composed table from a handful of rows, and a strict one where nothing is unlabelled."""
    complete = skilled(40)
    assert [view.name for view in evaluate.views(complete, None)] == ["known labels"]
    rows = [row(f"c{i}", ("S1", "S2"), "composed") for i in range(25)] + [row(f"s{i}") for i in range(5)]
    names = [view.name for view in evaluate.views(scored(rows, np.zeros((30, 3))), None)]
    assert names == ["known labels", "unlabelled as absent", "composed rows"]


def test_a_source_of_one_side_is_ranked_against_the_other_side():
    """A source without a figure because it holds unsafe rows alone, and against flags of other rows."""
    rows = [msgspec.structs.replace(one, source="hard" if i == 0 else one.source) for i, one in enumerate(SIDES)]
    data = scored(rows, np.full((4, 3), 0.1), p_unsafe=[0.3, 0.9, 0.2, 0.4])
    fake, hard = breakdowns.measure_sources(data, data.p_unsafe >= 0.35)
    assert (hard["source"], hard["rows"], hard["flagged"], hard["ROC-AUC"]) == ("hard", 1, 0.0, 0.5)
    assert (fake["unsafe"], fake["ROC-AUC"]) == (1, 1.0) and fake["flagged"] == pytest.approx(2 / 3)


SIDES = [row("a", ("S1",)), row("b", ("S2",)), row("c"), row("d")]


@pytest.mark.parametrize("name, sign", [("micro-F1 @ tuned", 1), ("Hamming loss @ tuned", -1), ("Brier", -1)])
def test_a_difference_favours_the_marginal_by_the_figures_own_direction(name, sign):
    """A higher loss shown as a gain."""
    gain, nothing = {"interval": (0.1, 0.2)}, {"interval": (-0.1, 0.2)}
    assert report._is_better(gain, name) == (sign > 0) and report._is_worse(gain, name) == (sign < 0)
    assert not report._is_better(nothing, name) and not report._is_worse(nothing, name)


def test_in_top_k_looks_at_as_many_categories_as_a_row_has():
    """A composed row that can never count in full, since only one category can be the most probable."""
    rows = [row("a", ("S1",)), row("b", ("S1", "S10"), "composed"), row("c", ("S2",))]
    data = scored(rows, [[0.3, 0.2, 0.1], [0.2, 0.1, 0.3], [0.3, 0.2, 0.1]])
    marginal = next(one for one in methods(data, data) if one.name == "marginal")
    found = {one["code"]: one["figures"]["in top k"] for one in breakdowns.measure_categories(data, marginal)}
    assert found == {"S1": 1.0, "S2": 0.0, "S10": 1.0}
