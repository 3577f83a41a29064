"""The export, step by step: checkpoint → prompts, tree → graph → ONNX → parity → release."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch

from verdictree import families, repository
from verdictree.errors import UnsupportedGuard
from verdictree.exploration import Exploration
from verdictree.policy import Policy, check_distinct
from verdictree.release import Parity, Prompt, Release
from verdictree.tree import Tokens, VerdictTree
from verdictree_export import checkpoint as checkpoints
from verdictree_export import compilation, golden, inspection, int8, onnx_model, parity, prompt
from verdictree_export.checkpoint import Checkpoint
from verdictree_export.compiled_policies import CompiledPolicies
from verdictree_export.fidelity import MAX_P99
from verdictree_export.graph import GuardGraph
from verdictree_export.int8 import Example
from verdictree_export.prompt_bank import prefill
from verdictree_export.staging import Staging

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.float32}  # what the checkpoint is read as
DEFAULT_MAX_TOKENS = 1024

# Called at the begin of a step with its name and its number of parts; what it returns is called with each part done.
Progress = Callable[[str, int], Callable[[int], None]]


def _silent(_step: str, _parts: int) -> Callable[[int], None]:
    return lambda _done: None


def export_release(
    source: str,
    family_name: str,
    policies: Sequence[Policy],
    model_repository: Path,
    *,
    number: int | None = None,
    adapter: Path | None = None,
    precision: str = "fp32",
    exploration: Exploration | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    evaluation: Sequence[Example] = (),
    max_change: float = MAX_P99,
    max_off_grammar: float | None = None,
    progress: Progress = _silent,
) -> Release:
    """Export a guard as release `number` (None: the next free one) of a model repository.

    `source` is a checkpoint folder, a hub id, a GGUF file or "embedded"; the first of `policies` is the default;
    `max_tokens` bounds a conversation's tokens; `evaluation` is what int8 is fitted to and judged by,
    `max_change` what the 99th percentile of |ΔP(unsafe)| may be there. An answer with more than `max_off_grammar` off
    the grammar is no verdict (None: 0.5, or 1 for a guard that mostly answers something else); a guard that never
    answers one is refused, unless it is 1.
    The repository's first release is pinned; a later one is only written.
    Raises UnsupportedGuard or AmbiguousGrammar where the guard cannot be exported faithfully, and then leaves the
    repository as it was.
    """
    if precision not in PRECISIONS:
        raise UnsupportedGuard(f"expected a precision among {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "int8":
        int8.check(evaluation)
    policies = tuple(policies)
    check_distinct(policies)
    exploration = exploration or Exploration()
    if family_name != inspection.AUTO:
        families.family(family_name)  # a wrong name is told before the checkpoint is loaded
    load_done = progress("load the checkpoint", 1)
    guard = checkpoints.load(source, adapter, PRECISIONS[precision])
    load_done(1)
    family = inspection.resolve(guard, family_name)
    prompts, tree = compilation.compile_prompts(guard, family, policies)
    max_tokens = min(max_tokens, compilation.room(guard, prompts, tree, exploration))
    first = repository.next_number(model_repository) == 1
    number = number or repository.next_number(model_repository)
    staging = Staging(model_repository, number)
    try:
        tokenizer = prompt.plain_text_tokenizer(guard)
        staging.add_tokenizer(tokenizer)
        checkpoints.save_outline(guard, staging.outline_folder)
        graph_done = progress("write the ONNX graph", 1)
        compiled = CompiledPolicies(prompts, tree, exploration, prefill(guard.model, prompts))
        graph = onnx_model.write(GuardGraph(guard.model, compiled), staging.graph_folder)
        graph_done(1)
        tolerance = parity.TOLERANCES[precision]
        asked = [(i, parity.example(one, family.conversation, tokenizer, max_tokens)) for i, one in enumerate(prompts)]
        figures = _parity(guard, prompts, tree, exploration, graph, asked, tolerance, progress)
        release = Release(
            number=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            checkpoint=guard.name,
            adapter=_named(adapter) if adapter else None,
            family=family.name,
            precision=precision,
            policies=policies,
            conversation=family.conversation,
            prompts=prompts,
            max_tokens=max_tokens,
            tree=tree,
            exploration=exploration,
            parity=figures,
            files={},
        )
        if precision == "int8":
            quantized = progress("quantize, and compare with fp32", 1)
            fidelity = int8.convert(graph, release, tokenizer, compiled, evaluation, max_change)
            release = msgspec.structs.replace(release, fidelity=fidelity)
            quantized(1)
        onnx_model.finish(graph)
        release = staging.commit(golden.with_golden(release, graph, tokenizer, max_off_grammar, guard))
    finally:
        staging.discard()
    if first:
        repository.pin(model_repository, number)
        repository.keep_only_pinned(model_repository)
    return release


def _named(adapter: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(adapter.glob("adapter_*")):  # its configuration and its weights
        digest.update(path.read_bytes())
    return f"{adapter.name} sha256:{digest.hexdigest()}"


def _parity(
    guard: Checkpoint,
    prompts: tuple[Prompt, ...],
    tree: VerdictTree,
    exploration: Exploration,
    graph: Path,
    conversations: list[tuple[int, Tokens]],
    tolerance: float,
    progress: Progress,
) -> Parity:
    num_paths = parity.num_paths(tree, exploration, prompts, conversations)
    done = progress("compare the graph with the checkpoint", num_paths)
    return parity.measure(graph, guard.model, prompts, tree, exploration, conversations, tolerance, done)
