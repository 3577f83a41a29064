"""report.html: one file without scripts, whose texts are escaped, since what it quotes was written by strangers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from verdictree.text.pages import page_environment
from verdictree_evaluation.metrics.decisions import FIXED, PER_CATEGORY, TUNED

TEMPLATE = "report.html.j2"
SCORE_FIGURES = ("micro ROC-AUC", "average precision", "Brier", "ECE", "FPR @ recall 0.9")
DECISION_FIGURES = tuple(
    f"{name} @ {rule}" for rule in (FIXED, TUNED, PER_CATEGORY) for name in ("micro-F1", "Hamming loss", "macro-F1")
)
_LOWER_IS_BETTER = ("Hamming loss", "Brier", "ECE", "FPR")


def render(content: dict[str, Any]) -> str:
    """The report as HTML; `content` holds what `report.html.j2` names, with SVG documents under `plots`."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"figure": _figure, "range": _range, "image": _image}
    environment.tests["best"] = _is_best
    environment.tests |= {"better": _is_better, "worse": _is_worse}
    template = environment.get_template(TEMPLATE)
    return template.render(score_figures=SCORE_FIGURES, decision_figures=DECISION_FIGURES, **content)


def _figure(value: float | dict[str, Any] | None, digits: int = 3, sign: bool = False) -> str:
    number = value["value"] if isinstance(value, dict) else value
    if number is None:
        return "–"
    text = f"{number:+.{digits}f}" if sign else f"{number:.{digits}f}"
    return text.replace("-", "−")


def _range(value: dict[str, Any] | None, digits: int = 3, sign: bool = False) -> str:
    if not value or not value.get("interval"):
        return ""
    low, high = (_figure(bound, digits, sign) for bound in value["interval"])
    return f"{low} … {high}"


def _image(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _is_best(value: dict[str, Any] | None, rows: list[dict[str, Any]], name: str) -> bool:
    found = [row["figures"][name]["value"] for row in rows if row["figures"].get(name)]
    if value is None or round(min(found), 3) == round(max(found), 3):
        return False
    best = min(found) if name.startswith(_LOWER_IS_BETTER) else max(found)
    return bool(round(value["value"], 3) == round(best, 3))


def _is_better(difference: dict[str, Any] | None, name: str) -> bool:
    sign = -1.0 if name.startswith(_LOWER_IS_BETTER) else 1.0
    return bool(difference and difference["interval"] and min(sign * bound for bound in difference["interval"]) > 0)


def _is_worse(difference: dict[str, Any] | None, name: str) -> bool:
    sign = -1.0 if name.startswith(_LOWER_IS_BETTER) else 1.0
    return bool(difference and difference["interval"] and max(sign * bound for bound in difference["interval"]) < 0)
