"""The figures against their definitions, the gates, and the report."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from verdictree import CategoryScore, Conversation, GreedyVerdict, Message, Verdict
from verdictree.pair import Pair
from verdictree_comparison import Gates, InvalidGates, compare_pairs, figures, report
from verdictree_comparison import gates as gate_files
from verdictree_comparison.errors import BadPairs

RNG = np.random.default_rng(7)


def verdict(release, p_unsafe, s1, flags=(None, None), codes=("S1",)):
    is_calibrated = flags[0] is not None
    categories = tuple(
        CategoryScore(code, code, s1, 0.0, 0.0, s1 if is_calibrated else None, flags[1]) for code in codes
    )
    return Verdict(
        release=release,
        policy="p",
        role="user",
        p_unsafe=p_unsafe,
        p_safe=1 - p_unsafe,
        categories=categories,
        unexplored=0.0,
        off_grammar=0.0,
        greedy=GreedyVerdict("safe", (), True),
        num_tokens=3,
        num_truncated_tokens=0,
        p_unsafe_calibrated=p_unsafe if is_calibrated else None,
        flagged=flags[0],
        calibration="1.1" if is_calibrated else None,
    )


def pairs_of(live, candidate, text="<b>hi</b>", **options):
    return [
        Pair(
            live=verdict(1, *one, **options),
            live_ms=10.0,
            candidate=verdict(2, *other, **options),
            candidate_ms=12.0,
            conversation=Conversation((Message("user", f"{text} {i}"),)),
        )
        for i, (one, other) in enumerate(zip(live, candidate, strict=True))
    ]


def compared(found, gates=None):
    return compare_pairs(found, live=1, candidate=2, source="test", gates=gates or Gates())


def test_psi_is_its_sum_over_the_deciles():
    """Bins that are not those of the live release, or a sum that is not the PSI."""
    live, candidate = RNG.beta(2, 5, 500), RNG.beta(2, 4, 500)
    edges = np.quantile(live, np.arange(1, 10) / 10)
    p, q = [], []
    for low, high in zip([-1, *edges], [*edges, 2], strict=True):
        p.append((np.sum((live > low) & (live <= high)) + 0.5) / 505)
        q.append((np.sum((candidate > low) & (candidate <= high)) + 0.5) / 505)
    expected = sum((b - a) * np.log(b / a) for a, b in zip(p, q, strict=True))
    found = figures.psi(live, candidate)
    assert found.value == pytest.approx(expected) and found.low < found.value < found.high


def test_scores_at_one_point_have_a_psi():
    """Empty bins, nan or infinity where most scores are the same."""
    live = np.where(np.arange(400) < 380, 0.0, RNG.uniform(size=400))
    assert figures.psi(live, live).high == 0
    moved = figures.psi(live, np.minimum(live + 0.3, 1))
    assert np.isfinite([moved.value, moved.low, moved.high]).all() and moved.low > 1


def test_ks_is_the_largest_gap_of_the_distribution_functions():
    """Another distance by the same name."""
    live, candidate = RNG.normal(size=300), RNG.normal(0.5, 1, size=300)
    grid = np.concatenate([live, candidate])
    gap = max(abs(np.mean(live <= x) - np.mean(candidate <= x)) for x in grid)
    found = figures.ks(live, candidate)
    assert found.value == pytest.approx(gap) and found.low <= gap <= found.high


@pytest.mark.parametrize("figure", [figures.mean_abs_difference, figures.latency_ratio])
def test_intervals_cover(figure):
    """Intervals that are too narrow to hold a gate against: 95 % must cover in most of 60 draws."""
    big = RNG.gamma(3, 1, 200_000), RNG.gamma(3, 1.3, 200_000)
    truth = float(np.mean(np.abs(big[1] - big[0])) if figure is figures.mean_abs_difference else 1.3)
    found = [figure(RNG.gamma(3, 1, 150), RNG.gamma(3, 1.3, 150)) for _ in range(60)]
    assert sum(one.low <= truth <= one.high for one in found) >= 51


def test_share_has_wilsons_interval():
    """An interval of width zero at no flips of few: that is no evidence."""
    found = figures.share(np.zeros(200, dtype=bool))
    z = 1.959964
    assert found.value == found.low == 0 and found.high == pytest.approx(z**2 / (200 + z**2), rel=1e-4)


def test_flips_are_counted_and_shown():
    """Flips that cancel out in an agreement, and against the wrong direction."""
    live = [(0.9, 0.9)] * 30 + [(0.01, 0.01)] * 70
    candidate = [(0.1, 0.1)] * 4 + [(0.9, 0.9)] * 26 + [(0.8, 0.01)] * 2 + [(0.01, 0.01)] * 68
    found = compared(pairs_of(live, candidate))
    assert (found.decision.num_to_safe, found.decision.num_to_unsafe) == (4, 2)
    unsafe, s1 = found.rows
    assert (unsafe.code, s1.code, s1.flags.num_to_safe, s1.flags.num_to_unsafe) == ("unsafe", "S1", 4, 0)
    assert unsafe.flags.agreement.value == 0.94
    assert [flip.text for flip in found.to_unsafe] == ["<b>hi</b> 30", "<b>hi</b> 31"]
    assert found.to_safe[0].live.flagged == ("unsafe", "S1") and found.to_safe[0].candidate.flagged == ()
    assert found.latency_ratio.value == pytest.approx(1.2)


def test_own_flags_count_where_a_release_is_calibrated():
    """A change of thresholds that nobody sees, since it moves no score."""
    live = [(0.3, 0.3, (True, True))] * 50
    candidate = [(0.3, 0.3, (False, False))] * 50
    found = compared(pairs_of(live, candidate))
    assert found.is_calibrated and found.decision.num_to_safe == 50
    assert all(row.psi.value == row.ks.value == row.mean_abs_difference.value == 0 for row in found.rows)


def test_gates_hold_the_bad_end_of_the_interval():
    """A promotion on too few conversations, and a failed gate without its name."""
    same = [(p, p / 2) for p in RNG.beta(0.4, 2, 300)]
    assert compared(pairs_of(same, same)).passed
    few = compared(pairs_of(same[:60], same[:60]))
    assert not few.passed
    assert few.failed[0] == "min_conversations: expected at least 200, got 60"
    assert any(reason.startswith("max_flips_to_safe for decision: expected at most 0.02") for reason in few.failed)
    moved = [(min(1, 2 * p), s1) for p, s1 in same]
    reasons = compared(pairs_of(same, moved)).failed
    assert any(reason.startswith("max_psi for unsafe") for reason in reasons)


def test_failures_of_the_candidate_count():
    """A candidate that looks perfect since its failures are left out."""
    same = [(p, p / 2) for p in RNG.beta(0.4, 2, 300)]
    found = pairs_of(same, same)
    failed = [Pair(live=one.live, live_ms=1.0, error="boom", num_dropped=3) for one in found[:15]]
    one = compared(found + failed)
    assert one.num_conversations == 300 and one.failures.value == pytest.approx(15 / 315) and one.num_dropped == 3
    assert one.failed == ("max_failures: expected at most 0.02, got " + f"{one.failures.high:.4g}",)
    with pytest.raises(BadPairs, match="failed on every conversation"):
        compared(failed)


def test_categories_of_one_release_are_said():
    """A new category that is silently left out."""
    found = [
        Pair(
            live=verdict(1, 0.1, 0.1, codes=("S1", "S2")), live_ms=1.0, candidate=verdict(2, 0.1, 0.1), candidate_ms=1.0
        )
    ] * 3
    one = compared(found)
    assert (one.only_live, one.only_candidate) == (("S2",), ())
    assert "Not compared, since only one release has them: S2." in report.render(one)


def test_report_and_json(tmp_path):
    """A moderated text that runs in the reader's browser, and JSON that is none."""
    live, candidate = [(0.9, 0.9)] * 5 + [(0.1, 0.1)] * 5, [(0.1, 0.1)] * 5 + [(0.9, 0.1)] * 5
    one = compared(pairs_of(live, candidate, text="<script>alert(1)</script>\u202e"))
    html = report.render(one)
    assert "&lt;script&gt;alert(1)" in html and "<script" not in html and "\u202e" not in html
    assert "default-src 'none'" in html and not re.findall(r'(?:src|href)="', html)
    parsed = json.loads(one.to_json(), parse_constant=pytest.fail)
    assert parsed["decision"]["num_to_safe"] == 5 and parsed["gates"][0]["gate"] == "min_conversations"
    assert report.table(one).row_count == 3
    assert "9 gates failed" in report.summary(one)


@pytest.mark.parametrize(
    ("text", "said"),
    [("max_psy: 1", "unknown field `max_psy`"), ("max_psi: a", "Expected `float`"), ("a: [", "not valid YAML")],
)
def test_gates_file(tmp_path, text, said):
    """A misspelt gate that is silently not held."""
    path = tmp_path / "gates.yaml"
    path.write_text("max_psi: 0.5\n")
    assert gate_files.load(path) == Gates(max_psi=0.5)
    path.write_text("")
    assert gate_files.load(path) == Gates()
    path.write_text(text)
    with pytest.raises(InvalidGates, match=said):
        gate_files.load(path)
    with pytest.raises(InvalidGates, match="cannot be read"):
        gate_files.load(tmp_path / "none.yaml")
