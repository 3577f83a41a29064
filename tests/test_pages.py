"""The pages that the software writes, opened in a real browser with hostile texts in every place."""

from __future__ import annotations

import browser
import msgspec
import pytest

from verdictree import CategoryScore, Conversation, GreedyVerdict, Message, Verdict
from verdictree.pair import Pair
from verdictree_comparison import Gates, compare_pairs
from verdictree_comparison import report as comparison_report
from verdictree_evaluation import scoring, session
from verdictree_evaluation.data import formats
from verdictree_evaluation.data.predictions import Prediction
from verdictree_evaluation.evaluation_run import evaluate_data
from verdictree_evaluation.reports import outputs

pytestmark = [pytest.mark.slow, browser.needed]


def verdict(release, text, flagged):
    p = 0.9 if flagged else 0.1
    scores = tuple(CategoryScore(code, text, p, 0.0, 0.0, p, flagged) for code in (f"S1{text}", "S2"))
    greedy = GreedyVerdict(text, (), True)
    told = {"p_unsafe_calibrated": p, "flagged": flagged, "calibration": text}
    return Verdict(release, text, "user", p, 1 - p, scores, 0.0, 0.0, greedy, 3, 0, **told)


def comparison(text, _folder, _monkeypatch):
    """Flips both ways, a category that only one release has, and a source that names a file."""
    pairs = []
    for i in range(20):
        live, candidate = verdict(1, text, i % 2 == 0), verdict(2, text, i % 2 == 1)
        candidate = msgspec.structs.replace(candidate, categories=candidate.categories[:1])
        asked = Conversation((Message("user", f"{text} {i}"),))
        pairs.append(Pair(live=live, live_ms=1.0, candidate=candidate, candidate_ms=1.0, conversation=asked))
    return comparison_report.render(compare_pairs(pairs, live=1, candidate=2, source=text, gates=Gates()))


class FakeGuard:
    """Scores every row as unsafe, mistakenly or not; its name and its categories are hostile too."""

    def __init__(self, text):
        self.release, self.codes, self.names = text, ("S1", "S2"), (text, text)
        self.text = text

    def score(self, rows):
        for one in rows:
            said = verdict(1, self.text, int(one.id.rpartition("r")[2]) % 3 == 0)
            pairs = zip(said.categories, self.codes, strict=True)
            named = [msgspec.structs.replace(score, code=code) for score, code in pairs]
            said = scoring.uncalibrated(msgspec.structs.replace(said, categories=tuple(named)))
            yield Prediction(id=one.id, digest=one.digest, release=self.release, verdict=said)


def evaluation(text, folder, monkeypatch):
    """Texts, ids, sources, category names and the guard's own name; mistakes are shown as examples."""
    guard = FakeGuard(text)
    monkeypatch.setattr(session.Session, "guard", lambda self: guard)
    monkeypatch.setattr("verdictree_evaluation.evaluation_run._describe", lambda guard: text)
    rows = [
        formats.Row(f"{text}r{i}", (Message("user", f"{text} {i}"),), ("S1",) if i % 2 else (), kind, text)
        for i, kind in ((i, "targeted" if i % 2 else "safe") for i in range(30))
    ]
    data = folder / "data.jsonl"
    data.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows) + text.encode())
    names = ("histograms", "reliability", "category_reliability", "precision_recall", "confusion", "scatter")
    monkeypatch.setattr(outputs, "_plots", lambda scored, flags: dict.fromkeys(names, "<svg/>"))
    options = {"csv_text": "text", "csv_labels": "labels", "csv_id": "id", "strict": False, "truncate": None}
    options |= {"seed": 0, "resamples": 5, "redact": False}
    one = session.Session(options, lambda step, total, done: lambda: None)
    run, path = evaluate_data(one, [data], (), folder / "out")
    assert run.problems
    return path.read_text()


@pytest.mark.parametrize("with_policy", [True, False], ids=["as written", "without its security policy"])
@pytest.mark.parametrize("make", [comparison, evaluation])
def test_a_page_is_inert(make, with_policy, tmp_path, monkeypatch):
    """A moderated text that runs in the analyst's browser reads what the analyst may; escaping alone must hold."""
    with browser.listener() as (address, asked):
        text = browser.hostile(address)
        page = make(text, tmp_path, monkeypatch)
        assert "&lt;script&gt;" in page
        document = browser.opened(page, tmp_path, with_policy)
    assert f' {browser.RAN}="1"' not in document.partition("<body")[0]
    assert not any(f"<{tag}" in document for tag in ("script", "iframe", "base", "link", "svg onload", 'img src="x'))
    assert asked == [] and "&lt;script&gt;" in document


def test_the_browser_would_tell(tmp_path):
    """A check that cannot fail proves nothing: unescaped, the same text runs and asks."""
    with browser.listener() as (address, asked):
        document = browser.opened(f"<html><body>{browser.hostile(address)}</body></html>", tmp_path)
    assert f' {browser.RAN}="1"' in document.partition("<body")[0] and asked
