"""The comparison for people: a table in a terminal, and one HTML file without scripts, its quotations escaped."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from verdictree.text.pages import page_environment
from verdictree.text.visible import visible
from verdictree_comparison.comparison import Compared
from verdictree_comparison.figures import Figure

TEMPLATE = "report.html.j2"


def table(compared: Compared) -> Table:
    """The rows with their 95 % intervals."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    for name in ("", "flagged", "same flag", "→ safe", "→ unsafe", "PSI", "KS", "mean |Δp|"):
        result.add_column(name, justify="left" if not name else "right", no_wrap=True)
    flags = [("decision", compared.decision, None), *((row.code, row.flags, row) for row in compared.rows)]
    for name, one, row in flags:
        scores = ("", "", "") if row is None else tuple(map(_cell, (row.psi, row.ks, row.mean_abs_difference)))
        shares = map(_cell, (one.agreement, one.to_safe, one.to_unsafe))
        result.add_row(visible(name), f"{one.num_live} → {one.num_candidate}\n", *shares, *scores)
    return result


def summary(compared: Compared) -> str:
    """The comparison in one line."""
    decision, ratio = compared.decision, compared.latency_ratio
    outcome = "all gates passed" if compared.passed else f"{len(compared.failed)} of {len(compared.gates)} gates failed"
    return (
        f"{compared.num_conversations} conversations ({compared.source}), {decision.num_to_safe} unsafe → safe, "
        f"{decision.num_to_unsafe} safe → unsafe, latency × {_number(ratio, 2)} ({_interval(ratio, 2)}); {outcome}"
    )


def render(compared: Compared) -> str:
    """The comparison as HTML."""
    environment = page_environment(Path(__file__).parent)
    environment.filters |= {"figure": _number, "interval": _interval}
    return environment.get_template(TEMPLATE).render(one=compared, software=metadata.version("verdictree"))


def _cell(figure: Figure) -> Text:
    return Text.assemble(f"{_number(figure)}\n", (f"{figure.low:.2f}–{figure.high:.2f}", "dim"))


def _number(figure: Figure | float, digits: int = 3) -> str:
    return f"{figure.value if isinstance(figure, Figure) else figure:.{digits}f}"


def _interval(figure: Figure, digits: int = 3) -> str:
    return f"{figure.low:.{digits}f} … {figure.high:.{digits}f}"
