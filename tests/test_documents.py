"""The documents: what they link to exists, and what is generated is fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click import Group

from verdictree.cli import main

ROOT = Path(__file__).resolve().parents[1]
_PATTERNS = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "export/recipes/**/*.md", "tests/**/*.md")
DOCUMENTS = sorted(path for pattern in _PATTERNS for path in ROOT.glob(pattern))
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document):
    """A command or an option that was renamed stays in the documents, and is what a newcomer tries first."""
    written = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"(?:^|[ `/])verdictree ([a-z][^`\n#]*)", written, re.MULTILINE):
        words, command = line.split(), main
        while words and isinstance(command, Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if command is main:
            continue  # prose
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word.partition("=")[0].strip(",.;:()") for word in words if re.match(r"--[a-z]", word)}
        assert not isinstance(command, Group) or not options, f"verdictree {line}: no such command"
        assert options <= known, f"verdictree {line}: no such option"
