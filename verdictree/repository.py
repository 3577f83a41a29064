"""A model repository on disk: which releases it holds, which the server loads, and which one the ensemble is pinned to.

Every configuration is replaced in one step, and in such an order that at no moment, however a writer dies, the
ensemble refers to a release that its steps do not load.
"""

from __future__ import annotations

import os
import py_compile
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from verdictree.errors import InvalidRelease
from verdictree.release import COMPOSING_MODELS, GRAPH_MODEL, MANIFEST, Release

ENSEMBLE, CANDIDATE, LIVE, ROUTER = "guard", "guard_candidate", "guard_live", "guard_router"
CONFIG = "config.pbtxt"
_PIN = re.compile(r"(model_version: )(\d+)")
_VERSIONS = re.compile(r"(versions: \[ )([\d, ]+)(?= \])")


def releases(repository: Path) -> tuple[int, ...]:
    """The numbers of the releases that the repository holds, in order."""
    found = (path.parent.name for path in repository.glob(f"{GRAPH_MODEL}/*/{MANIFEST}"))
    return tuple(sorted(int(name) for name in found if name.isdigit()))


def next_number(repository: Path) -> int:
    """The smallest release number above all that the repository holds."""
    return max(releases(repository), default=0) + 1


def pinned(repository: Path, ensemble: str = ENSEMBLE) -> int:
    """The release that the ensemble is pinned to; InvalidRelease where the repository has no such ensemble."""
    path = repository / ensemble / CONFIG
    match = _PIN.search(path.read_text()) if path.is_file() else None
    if match is None:
        raise InvalidRelease(f"expected a model repository at '{repository}', got none; run `verdictree export`")
    return int(match.group(2))


def candidate(repository: Path) -> int | None:
    """The release that is staged beside the pinned one, if any."""
    return pinned(repository, CANDIDATE) if (repository / CANDIDATE / CONFIG).is_file() else None


def versions(repository: Path) -> tuple[int, ...]:
    """The releases that a server loads when it starts."""
    match = _VERSIONS.search((repository / GRAPH_MODEL / CONFIG).read_text())
    return tuple(sorted(map(int, match.group(2).split(",")))) if match else ()


def set_versions(repository: Path, numbers: Iterable[int]) -> None:
    """Let the composing models load these releases, from the next load on."""
    for model in COMPOSING_MODELS:
        path = repository / model / CONFIG
        _replace(path, config_with_versions(path.read_text(), numbers))


def config_with_versions(config: str, numbers: Iterable[int]) -> str:
    """A model's configuration that loads these releases."""
    return _VERSIONS.sub(rf"\g<1>{', '.join(map(str, sorted(set(numbers))))}", config)


def pin(repository: Path, number: int) -> None:
    """Let the ensemble serve release `number` from its next load on; releases that are loaded stay loaded."""
    set_versions(repository, {*versions(repository), pinned(repository), number})
    (repository / ENSEMBLE / str(number)).mkdir(exist_ok=True)
    path = repository / ENSEMBLE / CONFIG
    _replace(path, _pinned_to(path.read_text(), number))


def keep_only_pinned(repository: Path) -> None:
    """Forget every release but the pinned one, as a server that starts should; no release's files are touched."""
    for ensemble in (CANDIDATE, LIVE):
        remove_ensemble(repository, ensemble)
    set_versions(repository, [pinned(repository)])


def write_ensemble(repository: Path, name: str, number: int) -> None:
    """A second ensemble like the first, of this name and pinned to release `number`."""
    config = _pinned_to((repository / ENSEMBLE / CONFIG).read_text(), number)
    (repository / name / str(number)).mkdir(parents=True, exist_ok=True)
    _replace(repository / name / CONFIG, config.replace(f'name: "{ENSEMBLE}"\n', f'name: "{name}"\n', 1))


def remove_ensemble(repository: Path, name: str) -> None:
    """Remove what `write_ensemble` wrote; nothing where it wrote nothing."""
    (repository / name / CONFIG).unlink(missing_ok=True)  # first: what is left of a folder must not count as staged
    shutil.rmtree(repository / name, ignore_errors=True)


def link_files(repository: Path, base: Release, names: Iterable[str], folder: Path) -> None:
    """Link files of release `base` (`names` as in its manifest) into a release under construction in `folder`.

    Raises OSError where the file system has no hard links.
    """
    for name in names:
        target = folder / name.replace(f"/{base.number}/", "/", 1)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(repository / name, target)


def compile_adapters(repository: Path, number: int) -> None:
    """Write the bytecode of a release's Triton adapters, and of the router's, before a server does.

    Python would write it into their folders at the first load, and Triton takes a folder that has changed for a
    release that has changed: the next load of anything would load the live release again.
    """
    for folder in (*(repository / model / str(number) for model in COMPOSING_MODELS), repository / ROUTER / "1"):
        adapter = folder / "model.py"
        if adapter.is_file():
            py_compile.compile(str(adapter), doraise=True)


def _pinned_to(config: str, number: int) -> str:
    return _VERSIONS.sub(rf"\g<1>{number}", _PIN.sub(rf"\g<1>{number}", config))


def _replace(path: Path, text: str) -> None:
    """Replace a file in one step that also outlives a power cut; one that is the same already stays as it is."""
    if path.is_file() and path.read_text() == text:
        return
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
