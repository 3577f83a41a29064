"""A model repository on disk: which releases it holds, and which one the ensemble is pinned to."""

from __future__ import annotations

import re
from pathlib import Path

from verdictree.errors import InvalidRelease
from verdictree.release import COMPOSING_MODELS, GRAPH_MODEL, MANIFEST

ENSEMBLE = "guard"
_PIN = re.compile(r"(model_version: )(\d+)")
_SERVED = re.compile(r"(versions: \[ )\d+(?= \])")


def next_number(repository: Path) -> int:
    """The smallest release number above all that the repository holds."""
    found = [int(path.parent.name) for path in repository.glob(f"{GRAPH_MODEL}/*/{MANIFEST}")]
    return max(found, default=0) + 1


def pinned(repository: Path) -> int:
    """The release that the ensemble serves; InvalidRelease where the repository has no ensemble."""
    path = repository / ENSEMBLE / "config.pbtxt"
    match = _PIN.search(path.read_text()) if path.is_file() else None
    if match is None:
        raise InvalidRelease(f"expected a model repository at '{repository}', got none; run `verdictree export`")
    return int(match.group(2))


def pin(repository: Path, number: int) -> None:
    """Let the ensemble and its steps serve release `number` from the next load on."""
    for model in (*COMPOSING_MODELS, ENSEMBLE):  # the ensemble last: it refers to the others
        path = repository / model / "config.pbtxt"
        text = _PIN.sub(rf"\g<1>{number}", path.read_text())
        temporary = path.with_suffix(".tmp")
        temporary.write_text(_SERVED.sub(rf"\g<1>{number}", text))
        temporary.replace(path)
