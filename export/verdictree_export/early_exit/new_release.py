"""Fit the early exit of a release that was exported with one: a new release, with the weights' file shared."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from verdictree.conversation import Conversation
from verdictree.errors import UnsupportedGuard
from verdictree.releases import calibration as calibrations
from verdictree.releases import writer as release_writer
from verdictree.releases.calibration import Calibration
from verdictree.releases.early_exit import MAX_MISSED
from verdictree.releases.release import (
    GRAPH_FILE,
    GRAPH_MODEL,
    MANIFEST,
    MARGINALS_MODEL,
    POLICIES_FILE,
    TOKENIZER_MODEL,
    Release,
    sha256,
)
from verdictree.runtime.tokenization import load_tokenizer
from verdictree_export.defaults import EXIT_CONFIDENCE
from verdictree_export.early_exit import fitting
from verdictree_export.early_exit.fitting import Fit
from verdictree_export.early_exit.observations import observe
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.graph_prefill import stored


def fit_release(
    models: Path,
    source: int,
    conversations: Sequence[Conversation],
    *,
    calibration: Path | None = None,
    max_missed: float = MAX_MISSED,
    confidence: float = EXIT_CONFIDENCE,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Release, Fit]:
    """Write the next release: release `source` with an early exit that is fitted to these conversations.

    `calibration` is a calibration file that was fitted for `source`; None: its own. See `fitting.fit` for the rest.
    Raises InvalidRelease for a damaged source, UnsupportedGuard for one that was exported without an exit layer, or
    where nothing can be proven, and then leaves the repository as it was.
    """
    base = Release.load_verified(models, source)
    if base.early_exit is None:
        raise UnsupportedGuard(
            f"expected a release with an exit layer, got {source}, whose graph has none; export the guard again with "
            "--early-exit"
        )
    fitted = _calibrations(models, base, calibration)
    graph = base.folder(models, GRAPH_MODEL) / GRAPH_FILE
    tokenizer = load_tokenizer(base.folder(models, TOKENIZER_MODEL))
    observed = observe(graph, base, tokenizer, fitted, conversations, advance)
    found = fitting.fit(observed, base, base.early_exit.layer, max_missed, confidence)
    with release_writer.new(models, "early-exit fit") as draft:
        draft.link(base, [name for name in base.files if Path(name).name not in (GRAPH_FILE, POLICIES_FILE)])
        own = draft.folder(GRAPH_MODEL) / GRAPH_FILE
        shutil.copy(graph, own)
        caches = stored(graph, base.prompts)
        onnx_model.set_policies(own, CompiledPolicies(base.prompts, base.tree, base.exploration, caches, found.probe))
        release = msgspec.structs.replace(
            base,
            number=draft.number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            early_exit=found.early_exit,
            files={},
            shares=None,
        )
        return draft.commit(release, fitted, details={"source": source}), found


def _calibrations(models: Path, base: Release, calibration: Path | None) -> Mapping[str, Calibration]:
    folder = models / MARGINALS_MODEL / str(base.number)
    if calibration is None:
        return calibrations.load(folder, base)
    fitted = calibrations.read(calibration)
    for made in fitted.values():
        if made.manifest_sha256 != sha256(folder / MANIFEST):
            raise UnsupportedGuard(
                f"expected a calibration fitted for release {base.number}, got one for release {made.release}"
            )
    return fitted
