"""The folder that an evaluation writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fake_rows import CODES, CountingGuard

from verdictree.text import visible
from verdictree_client import ServerUnavailable
from verdictree_evaluation import evaluation_run, session
from verdictree_evaluation.errors import BadData, EvaluationError
from verdictree_evaluation.reports import outputs

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e $x$ {{ 7 * 7 }} " + "long " * 200
OPTIONS = {
    "csv_text": "text",
    "csv_labels": "labels",
    "csv_id": "id",
    "strict": False,
    "truncate": None,
    "seed": 0,
    "resamples": 20,
    "redact": False,
}


def write_data(path: Path, prefix: str, count: int = 30) -> Path:
    def fields(i: int) -> dict[str, object]:
        labels = [CODES[i % 3]] if i % 2 else []
        turn = {"role": "user", "content": f"{HOSTILE} {prefix}{i}"}
        kind = "targeted" if labels else "safe"
        return {"id": f"<b>{prefix}{i}</b>", "conversation": [turn], "labels": labels, "label_kind": kind}

    path.write_text("".join(json.dumps(fields(i)) + "\n" for i in range(count)))
    return path


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(session.Session, "guard", lambda self: CountingGuard())
    monkeypatch.setattr(evaluation_run, "_describe", lambda guard: "a <i>fake</i> guard")
    data = write_data(tmp_path / "data.jsonl", "d")

    def run(tune=(), **options):
        one = session.Session({**OPTIONS, **options}, lambda step, total, done: lambda: None)
        evaluation_run.evaluate_data(one, [data], tune, tmp_path / "out")
        return tmp_path / "out"

    return run


def test_report_escapes_hostile_text(evaluated):
    """A moderated text running in the analyst's browser; no scripts, nothing fetched, no reordering."""
    html = (evaluated() / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in html and "<script" not in html
    assert "<img src=x" not in html and "<b>d" not in html and "<i>fake" not in html
    assert "\u202e" not in html and "{{ 7 * 7 }}" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert "default-src 'none'" in html


@pytest.fixture
def without_plots(monkeypatch):
    names = ("histograms", "reliability", "category_reliability", "precision_recall", "confusion", "scatter")
    monkeypatch.setattr(outputs, "_plots", lambda scored, flags: dict.fromkeys(names, "<svg/>"))


def test_redacted_report_holds_no_text(evaluated, without_plots):
    """Texts that may not leave the building: not in the report, the metrics or the predictions."""
    out = evaluated(redact=True)
    for path in out.iterdir():
        assert "alert(1)" not in path.read_text(), path.name


def test_metrics_are_json(evaluated, without_plots):
    """NaN, which is not JSON, where a figure is not defined; the constant guard defines few."""
    text = (evaluated() / "metrics.json").read_text()
    measured = json.loads(text, parse_constant=pytest.fail)
    names = [row["method"] for row in measured["views"][0]["methods"]]
    assert names == ["greedy", "conditional", "joint", "marginal", "calibrated marginal"]
    assert "server does not show" in measured["baselines"]


def test_tuning_rows_must_be_others(evaluated, without_plots, tmp_path):
    """Thresholds tuned on the judged rows under another id."""
    with pytest.raises(BadData, match=r"both in DATA and in --tune"):
        evaluated(tune=[write_data(tmp_path / "tune.jsonl", "d")])
    measured = json.loads((evaluated(tune=[write_data(tmp_path / "tune.jsonl", "t")]) / "metrics.json").read_text())
    assert "--tune" in measured["tuned_on"] and "--tune" in measured["calibrated_by"]


def test_a_failing_guard_says_how_to_go_on(evaluated, monkeypatch, tmp_path):
    """A long run that ends with a bare gRPC status, from which nobody learns that nothing is lost."""

    class Failing(CountingGuard):
        def score(self, rows):
            yield from super().score(list(rows)[:3])
            raise ServerUnavailable("gone")

    monkeypatch.setattr(session.Session, "guard", lambda self: Failing())
    with pytest.raises(EvaluationError, match=r"gone.*predictions\.jsonl': run this again"):
        evaluated()
    assert len((tmp_path / "out" / "predictions.jsonl").read_bytes().splitlines()) == 3


def test_long_texts_are_cut():
    """A report of megabytes, and against control characters that hide what follows."""
    assert len(visible.shown("x" * 10_000)) == visible.MAX_CHARACTERS
    assert visible.shown("a\n\tb\x1b[31m\u2066c") == "a b�[31m�c"
