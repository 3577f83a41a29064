"""The documents: what they link to exists, and what is generated is fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import Command, Group

from verdictree_cli import main

ROOT = Path(__file__).resolve().parents[1]
_PATTERNS = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "export/recipes/**/*.md", "tests/**/*.md")
DOCUMENTS = sorted(path for pattern in _PATTERNS for path in ROOT.glob(pattern))
_CODE = re.compile(r"^```.*?^```|`[^`]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _anchors(document: Path) -> set[str]:
    """What the headings of a document are linked by: in lower case, without signs, with hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    """A link that leads nowhere sends a reader away who was about to find the answer."""
    for link in _LINK.findall(_CODE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue  # another site
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in _anchors(target), f"{link}: no such heading"


def test_readme_is_short():
    """A README that nobody reads to its end hides its limits."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8")) <= 12_000


def test_api_page_is_fresh():
    """A page that says what a docstring said once is worse than none."""
    run = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_api.py", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def _written(document: Path) -> list[str]:
    """The lines and spans of code in a document."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in blocks for line in block.splitlines()]
    return [" ".join(one.partition("  #")[0].split()) for one in (*lines, *spans)]


def _fault(words: list[str]) -> str | None:
    """What is wrong with a command line, after the program's name."""
    command: Command = main
    while words and isinstance(command, Group) and re.fullmatch("[a-z]+", words[0]):
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
    return f"no option {', '.join(options - known)}" if options - known else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document):
    """A command or an option that was renamed stays in the documents, and is what a newcomer tries first."""
    inner = {name: [group] for group in ("rollout", "policy") for name in main.commands[group].commands}
    for written in _written(document):
        words = written.removeprefix("$ ").split()
        if words[:1] and words[0].rpartition("/")[2] == "verdictree":
            assert _fault(words[1:]) is None, written
        elif len(words) > 1 and words[1].startswith("--") and words[0] in {*main.commands, *inner}:
            assert _fault([*inner.get(words[0], []), *words]) is None, written


def test_make_targets_exist():
    """A target that was renamed stays in the documents."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    written = {one for document in DOCUMENTS for one in _written(document)}
    named = {match[1] for one in written if (match := re.match(r"make ([a-z-]+)(?: |$)", one))}
    assert named <= targets, named - targets
