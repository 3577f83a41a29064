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

from verdictree import calibration as calibrations
from verdictree import families, repository
from verdictree import release as releases
from verdictree.errors import UnsupportedGuard
from verdictree.exploration import unpack
from verdictree.graph_io import feeds
from verdictree.policy import Policy, check_distinct
from verdictree.release import (
    GRAPH_FILE,
    GRAPH_MODEL,
    MARGINALS_MODEL,
    OUTLINE_FOLDER,
    POLICIES_FILE,
    TOKENIZER_MODEL,
    Release,
)
from verdictree.tokenization import load_tokenizer
from verdictree.tree import Tokens
from verdictree_export import checkpoint as checkpoints
from verdictree_export import compilation, golden, onnx_model, parity
from verdictree_export.compiled_policies import CompiledPolicies
from verdictree_export.finite import require_finite
from verdictree_export.graph_prefill import Prefill, prefill, stored
from verdictree_export.graph_session import GraphSession
from verdictree_export.staging import Staging

# Of a probability at the head of the verdict tree. Sums in another order differ in the last digits, which rounding to 8
# bits, or in half precision, amplifies.
_TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}


def add_policies(models: Path, source: int, policies: Sequence[Policy], number: int | None = None) -> Release:
    """Write release `number` (None: the next free one) with the policies of release `source`, then these.

    Calibrations are carried over: the guard answers the prompts that were there as before.
    Raises InvalidRelease for a damaged source, InvalidPolicy for a name that is taken, UnsupportedGuard or
    AmbiguousGrammar where the guard cannot be asked by a policy, and then leaves the repository as it was.
    """
    base = releases.load_verified(models, source)
    release, tokenizer = _planned(models, base, policies, number or repository.next_number(models))
    old, added = len(base.prompts), release.prompts[len(base.prompts) :]
    staging = Staging(models, release.number)
    try:
        kept = [name for name in base.files if Path(name).name not in (GRAPH_FILE, POLICIES_FILE)]
        staging.link(base, kept)
        graph, source_graph = staging.graph_folder / GRAPH_FILE, models / GRAPH_MODEL / str(source) / GRAPH_FILE
        form, limit = release.conversation, release.max_tokens
        asked = [parity.example(prompt, form, tokenizer, limit) for prompt in added]
        pairs = list(zip(added, asked, strict=True))
        whole = prefill(source_graph, pairs, release.tree, release.exploration, staging.graph_folder)
        caches = [*stored(source_graph, base.prompts), *(one.key_values for one in whole)]
        shutil.copy(source_graph, graph)
        compiled = CompiledPolicies(release.prompts, release.tree, release.exploration, caches)
        onnx_model.set_policies(graph, compiled)
        _prove(graph, release, [(old + i, *pair) for i, pair in enumerate(zip(asked, whole, strict=True))])
        release = staging.commit(golden.with_golden(release, graph, tokenizer, release.max_off_grammar))
    finally:
        staging.discard()
    fitted = calibrations.load(models / MARGINALS_MODEL / str(source), base)
    calibrations.rebind(fitted, release, models / MARGINALS_MODEL / str(release.number))
    return release


def _planned(models: Path, base: Release, policies: Sequence[Policy], number: int) -> tuple[Release, Tokenizer]:
    """The new release as far as it can be told without its graph, and the tokenizer that it serves."""
    together = (*base.policies, *policies)
    check_distinct(together)
    guard = checkpoints.load_outline(str(models / GRAPH_MODEL / str(base.number) / OUTLINE_FOLDER))
    family, apart = families.family(base.family), base.tree.opens_apart  # which the graph's levels depend on
    prompts, tree = compilation.compile_prompts(guard, family, together, apart)
    if prompts[: len(base.prompts)] != base.prompts:
        raise UnsupportedGuard(
            f"expected the prompts of release {base.number}, got others: this version of the software asks otherwise; "
            "export the guard again"
        )
    tokenizer = load_tokenizer(models / TOKENIZER_MODEL / str(base.number))
    room = compilation.room(guard, prompts, tree, base.exploration)
    release = msgspec.structs.replace(
        base,
        number=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        policies=together,
        prompts=prompts,
        tree=tree,
        max_tokens=min(base.max_tokens, room),
    )
    return release, tokenizer


def _prove(graph: Path, release: Release, added: Sequence[tuple[int, Tokens, Prefill]]) -> None:
    """Cached prefix and whole prompt must be the same to the graph."""
    inputs = feeds([ids for _, ids, _ in added], [[prefix_id] for prefix_id, _, _ in added])
    outputs = GraphSession(graph).run(inputs)
    for (prefix_id, _, whole), explored in zip(added, unpack(release.tree, release.exploration, *outputs), strict=True):
        require_finite(explored.head.log_probs, "the graph with the added policies")
        require_finite(whole.log_probs, "the graph's own prefill")
        worst = float(np.abs(np.exp(explored.head.log_probs) - np.exp(whole.log_probs)).max())
        tolerance, name = _TOLERANCES[release.precision], release.prompts[prefix_id].policy
        if not worst <= tolerance:
            raise UnsupportedGuard(
                f"expected the prompt of policy {name!r} within {tolerance} of its whole text's probabilities, got "
                f"{worst:.2g}; export the guard again with this policy"
            )
