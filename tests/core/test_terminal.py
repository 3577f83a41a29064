"""What reaches a terminal or a page: a stranger's text is text there, whatever command shows it."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.tree import Tree

from verdictree import CategoryScore, GreedyVerdict, Verdict
from verdictree.errors import VerdictreeError
from verdictree.releases.calibration import Calibrator, Outcome
from verdictree.text.visible import bounded, is_visible, quoted, seen, visible
from verdictree_cli import display, rollout_status
from verdictree_cli.terminal import Terminal, say, say_json
from verdictree_comparison import report
from verdictree_evaluation.calibration_run import Summary

# A title, a colour, C1's short forms, overwriting, turning around, hiding, and rich's own markup and emoji codes.
HOSTILE = (
    "\x1b]0;pwned\x07\x1b[31m\x9b2J\r\b\x7f\u202e\u2066\u200b\ufeff\u3164\U000e0041\x00 [red]PII [sensitive] :boom:"
)
TOLD = "[red]PII [sensitive] :boom:"


def printed(renderable, **options):
    """What a colour terminal would receive, and its text without the console's own colours."""
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, width=400, color_system="truecolor", **options).print(renderable)
    return file.getvalue()


def is_inert(text):
    own = re.sub("\x1b\\[(0|1|2|3|2;3)m", "", text)  # rich's reset, bold, dim and italic
    return all(is_visible(c) or c == "\n" for c in own)


def score(code="S1"):
    return CategoryScore(code, HOSTILE, 0.5, 0.5, 0.5, 0.5, True)


def a_verdict():
    greedy = GreedyVerdict(HOSTILE, (), True)
    return Verdict(1, "p", "user", 0.5, 0.5, (score(), score(HOSTILE)), 0.0, 0.0, greedy, 1, 0, 0.5, True, "1.1")


def a_status():
    entry = SimpleNamespace(
        time=HOSTILE, action=HOSTILE, event=HOSTILE, who=HOSTILE, reason=HOSTILE, release=1, details={"error": HOSTILE}
    )
    return SimpleNamespace(
        releases=(1,), last=[entry], stable=1, serving=1, candidate=None, former=None, loaded=(), canary=0, shadow=0
    )


def a_comparison():
    figure = SimpleNamespace(value=0.5, low=0.4, high=0.6)
    flags = SimpleNamespace(num_live=1, num_candidate=1, agreement=figure, to_safe=figure, to_unsafe=figure)
    row = SimpleNamespace(code=HOSTILE, flags=flags, psi=figure, ks=figure, mean_abs_difference=figure)
    return SimpleNamespace(decision=flags, rows=[row])


def a_calibration():
    outcome = Outcome(HOSTILE, Calibrator(), 0.5, HOSTILE, 1, 1)
    calibration = SimpleNamespace(unsafe=outcome, categories=(outcome,))
    return SimpleNamespace(calibration=calibration, losses={HOSTILE: {"none": 0.5}})


@pytest.mark.parametrize(
    "make",
    [
        lambda: display.table([(HOSTILE, a_verdict(), 1.0)]),
        lambda: rollout_status.table(a_status()),
        lambda: report.table(a_comparison()),
        lambda: Summary.table(a_calibration()),
        lambda: Tree(HOSTILE),
        lambda: HOSTILE,
    ],
    ids=["classify", "status", "compare", "calibrate", "a tree", "a str"],
)
def test_every_table_is_inert(make, monkeypatch):
    """A category's name cleared the screen, set the window's title, or lost its brackets to markup."""
    monkeypatch.setattr(report, "_number", lambda figure, digits=3: "0.5")
    found = printed(make())
    assert is_inert(found), repr(found)
    assert "[sensitive]" in found and ":boom:" in found and "💥" not in found


@pytest.mark.parametrize(
    ("flagged", "action", "undecided", "mark", "said"),
    [
        (True, "block", False, "⚑ ", ["block"]),
        (False, "review", False, "⚐ ", ["review"]),
        (False, "allow", False, "", ["allow"]),
        (None, None, False, "", []),
        (True, None, False, "⚑ ", []),
        (True, "block", True, "⚑ ", ["block", "undecided"]),
    ],
    ids=["block", "review", "allow", "no thresholds", "an older server", "undecided"],
)
def test_the_action_is_shown(flagged, action, undecided, mark, said):
    """What to do, which a caller would otherwise look for in the JSON."""
    category = CategoryScore("S1", "One", 0.5, 0.5, 0.5, flagged=flagged, action=action)
    told = {"flagged": flagged, "action": action, "undecided": undecided}
    verdict = Verdict(1, "p", "user", 0.5, 0.5, (category,), 0.0, 0.0, GreedyVerdict("", (), True), 1, 0, **told)
    shown = [line.rstrip() for line in printed(display.table([("x", verdict, 1.0)]), no_color=True).splitlines()]
    assert f"{mark}0.500" in shown[2] and f"{mark}S1 One" in shown[2]
    assert [line.strip() for line in shown[3 : 3 + len(said)]] == said
    assert shown[2].count("⚑") + shown[2].count("⚐") == (2 if mark else 0)


def test_any_cell_is_inert():
    """A table that a command builds by itself holds plain strings, which rich would read as markup."""
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    assert is_inert(printed(table)) and TOLD in printed(table)


def test_lines_are_inert():
    """A policy's name in a command's last line, or a row's id among the problems."""
    command = click.Command("x", callback=lambda: (say(HOSTILE), say(HOSTILE, err=True)))
    result = CliRunner().invoke(command)
    assert is_inert(result.output) and result.stdout.strip().endswith(TOLD) and result.stderr.strip().endswith(TOLD)


def test_json_is_inert_and_the_same_document(capfdbinary):
    """A terminal obeys C1 controls in JSON too; escaped, they are still the same text to a program."""
    say_json(msgspec.json.encode({"text": HOSTILE, "emoji": "🙂é"}))
    out = capfdbinary.readouterr().out.decode()
    assert json.loads(out) == {"text": HOSTILE, "emoji": "🙂é"}
    assert all(is_visible(c) for c in out.rstrip("\n")) and "🙂é" in out


def test_commands_print_through_one_door():
    """A new `click.echo` or a bare rich console would let text through again."""
    folders = ("cli", "verdictree", "evaluation", "comparison", "examples")
    found = []
    for path in (path for folder in folders for path in Path(folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            on_stderr = any(one.arg == "stderr" for one in node.keywords)  # progress bars, whose words are ours
            if called in ("click.echo", "click.secho", "print") or (called == "Console" and not on_stderr):
                found.append((path.name, called))
    # One prints its addresses only, the other is the door.
    assert set(found) <= {
        ("gateway.py", "click.echo"),
        ("langchain_guard.py", "print"),
        ("litellm_guardrail.py", "print"),
        ("openai_moderation.py", "print"),
        ("serve.py", "click.echo"),
        ("terminal.py", "click.echo"),
    }


@given(st.text())
def test_visible_text_is_visible(text):
    """Whatever the text is, nothing that is left acts on a terminal, and plain text is left as it is."""
    found = visible(text)
    assert all(map(is_visible, found)) and visible(found) == found
    assert (found == text) == all(map(is_visible, text))
    assert all(map(is_visible, str(VerdictreeError(text)).replace("\n", "")))


@given(st.text(max_size=300), st.integers(3, 100))
def test_bounded_text_is_bounded(text, limit):
    """The end matters as much as the beginning: it says where in the request the fault is."""
    found = bounded(text, limit)
    assert len(found) <= limit and (found == text) == (len(text) <= limit)
    assert quoted(text, limit).isprintable() or any(c >= "\u3164" for c in text)


def test_every_code_point_is_decided_without_error():
    """A code point that raises would turn an error message into a traceback."""
    everything = "".join(map(chr, range(0x3200))) + "".join(map(chr, range(0xD700, 0x10000, 7)))
    assert all(map(is_visible, visible(everything)))
    assert seen(5) == 5 and seen("\x1b") == "\\x1b" and sys.maxunicode > 0xFFFF
