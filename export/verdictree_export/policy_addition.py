"""Add policies to a release: a new release of the same guard, in seconds, with the weights' file shared.

The new prompts' prefixes are computed by the release's own graph, so the checkpoint's weights are not needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from tokenizers import Tokenizer

from verdictree import families
from verdictree.errors import UnsupportedGuard
from verdictree.policy import Policy, check_distinct
from verdictree.releases import calibration as calibrations
from verdictree.releases import writer as release_writer
from verdictree.releases.draft import Draft
from verdictree.releases.release import (
    GRAPH_FILE,
    GRAPH_MODEL,
    MARGINALS_MODEL,
    POLICIES_FILE,
    TOKENIZER_MODEL,
    WEIGHTLESS_FOLDER,
    Release,
)
from verdictree.runtime.graph_io import feeds
from verdictree.runtime.tokenization import load_tokenizer
from verdictree.verdict_tree.exploration import unpack
from verdictree.verdict_tree.trie import Tokens
from verdictree_export import golden, parity
from verdictree_export.finite import require_finite
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.graph_prefill import Prefill, prefill_by_graph, stored, stored_probe
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.prompts import checkpoint as checkpoints
from verdictree_export.prompts import compilation
from verdictree_export.tolerances import PRECISIONS


def add_policies(models: Path, source: int, policies: Sequence[Policy], number: int | None = None) -> Release:
    """Write release `number` (None: the next free one) with the policies of release `source`, then these.

    Calibrations are carried over: the guard answers the prompts that were there as before.
    Raises InvalidRelease for a damaged source, InvalidPolicy for a name that is taken, UnsupportedGuard or
    AmbiguousGrammar where the guard cannot be asked by a policy, and then leaves the repository as it was.
    """
    base = Release.load_verified(models, source)
    fitted = calibrations.load(models / MARGINALS_MODEL / str(source), base)
    with release_writer.new(models, "policy add", number) as draft:
        release, tokenizer = _planned(models, base, policies, draft.number)
        release = _write(models, base, release, tokenizer, draft)
        return draft.commit(release, fitted, details={"source": source})


def _write(models: Path, base: Release, release: Release, tokenizer: Tokenizer, draft: Draft) -> Release:
    """Write the release's files, from those of `base`; return it with its golden conversations."""
    old, added = len(base.prompts), release.prompts[len(base.prompts) :]
    draft.link(base, [name for name in base.files if Path(name).name not in (GRAPH_FILE, POLICIES_FILE)])
    folder, source_graph = draft.folder(GRAPH_MODEL), base.folder(models, GRAPH_MODEL) / GRAPH_FILE
    graph = folder / GRAPH_FILE
    asked = [parity.example(prompt, release.conversation, tokenizer, release.max_tokens) for prompt in added]
    pairs = list(zip(added, asked, strict=True))
    whole = prefill_by_graph(source_graph, pairs, release.tree, release.exploration, folder)
    caches = [*stored(source_graph, base.prompts), *(prefix.key_values for prefix in whole)]
    shutil.copy(source_graph, graph)
    probe = stored_probe(source_graph)
    probe = None if probe is None else probe.followed_by(len(added))
    compiled = CompiledPolicies(release.prompts, release.tree, release.exploration, caches, probe)
    onnx_model.set_policies(graph, compiled)
    _prove(graph, release, [(old + i, *pair) for i, pair in enumerate(zip(asked, whole, strict=True))])
    return golden.with_golden(release, graph, tokenizer)


def _planned(models: Path, base: Release, policies: Sequence[Policy], number: int) -> tuple[Release, Tokenizer]:
    """The new release as far as it can be told without its graph, and the tokenizer that it serves."""
    together = (*base.policies, *policies)
    check_distinct(together)
    guard = checkpoints.load_weightless(str(base.folder(models, GRAPH_MODEL) / WEIGHTLESS_FOLDER))
    # Whether first labels are evaluated apart is part of the graph: it is one depth of the search more.
    family, apart = families.family(base.family), base.tree.first_labels_apart
    form, prompts, tree, _ = compilation.compile_prompts(guard, family, together, apart)
    if form != base.conversation or prompts[: len(base.prompts)] != base.prompts:
        raise UnsupportedGuard(
            f"expected the prompts of release {base.number}, got others: this version of the software asks otherwise; "
            "export the guard again"
        )
    tokenizer = load_tokenizer(base.folder(models, TOKENIZER_MODEL))
    room = compilation.room(guard, prompts, tree, base.exploration)
    release = msgspec.structs.replace(
        base,
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policies=together,
        prompts=prompts,
        tree=tree,
        max_tokens=min(base.max_tokens, room),
        files={},
        shares=None,
    )
    return release, tokenizer


def _prove(graph: Path, release: Release, added: Sequence[tuple[int, Tokens, Prefill]]) -> None:
    """Cached prefix and whole prompt must be the same to the graph."""
    inputs = feeds([ids for _, ids, _ in added], [[prefix_id] for prefix_id, _, _ in added])
    outputs = GraphSession(graph).run(inputs)
    for (prefix_id, _, whole), explored in zip(added, unpack(release.tree, release.exploration, *outputs), strict=True):
        require_finite(explored.root.log_probs, "the graph with the added policies")
        require_finite(whole.log_probs, "the graph's own prefill")
        worst = float(np.abs(np.exp(explored.root.log_probs) - np.exp(whole.log_probs)).max())
        tolerance, name = PRECISIONS[release.precision].addition, release.prompts[prefix_id].policy
        if not worst <= tolerance:
            raise UnsupportedGuard(
                f"expected the prompt of policy {name!r} within {tolerance} of its whole text's probabilities, got "
                f"{worst:.2g}; export the guard again with this policy"
            )
