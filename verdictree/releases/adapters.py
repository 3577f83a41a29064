"""The Triton adapters that lie in a release's folders: code, so they belong to the software and not to the release.

An adapter is one import of a name that never changes, so that a release is served by later versions too. One that an
older version wrote is replaced before a server loads it, where the disk takes it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import py_compile
from collections.abc import Mapping
from pathlib import Path

from verdictree.errors import NotWritable
from verdictree.files import atomic_file
from verdictree.releases.release import MARGINALS_MODEL, TOKENIZER_MODEL
from verdictree.releases.repository import ADAPTER, ROUTER

_STEPS = {
    TOKENIZER_MODEL: ("Triton step `guard_tokenizer`: request JSON in, token ids out.", "tokenizer", "TokenizerStep"),
    MARGINALS_MODEL: (
        "Triton step `guard_marginals`: logits at the nodes of the verdict tree in, verdict JSON out.",
        "marginals",
        "MarginalsStep",
    ),
    ROUTER: (
        "Triton model `guard_router`: request JSON in, the verdict of the release that it belongs to out.",
        "router",
        "RouterStep",
    ),
}


def adapter(model: str) -> str | None:
    """The adapter of a model of the repository; None for one that another backend runs."""
    if model not in _STEPS:
        return None
    docstring, module, step = _STEPS[model]
    door = f"from verdictree_serving.triton_steps.{module} import {step} as TritonPythonModel  # noqa: F401"
    return f'"""{docstring}"""\n\n{door}\n'


def write_adapter(model: str, folder: Path) -> None:
    """Write the adapter of `model`, if it has one, into a folder of one of its versions."""
    text = adapter(model)
    if text is not None:
        (folder / ADAPTER).write_text(text)


def refresh(repository: Path, versions: Mapping[str, int]) -> None:
    """Bring the adapters of these versions of models, none of them loaded, up to this software, with their bytecode.

    Python would write the bytecode at the first load, and Triton takes a folder that has changed for a release that
    has changed: the next load of anything would load the live release again. So this must come before a load.
    A disk that takes nothing leaves an adapter as it is: those of older versions work too.
    """
    for model, version in versions.items():
        path, text = repository / model / str(version) / ADAPTER, adapter(model)
        if text is None or not path.parent.is_dir():
            continue
        with contextlib.suppress(NotWritable):
            atomic_file.replace(path, text)
        _compile(path)


def _compile(path: Path) -> None:
    bytecode = Path(importlib.util.cache_from_source(str(path)))
    if bytecode.is_file() and bytecode.stat().st_mtime_ns >= path.stat().st_mtime_ns:
        return
    with contextlib.suppress(OSError, py_compile.PyCompileError):  # where it does not start, the load says why
        if os.access(path.parent, os.W_OK):
            py_compile.compile(str(path), doraise=True)
