"""The export, step by step: checkpoint → prompts, tree → graph → ONNX → parity → release."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from verdictree import families, repository
from verdictree.conversation import Message
from verdictree.errors import UnsupportedGuard
from verdictree.exploration import Exploration
from verdictree.policy import Policy
from verdictree.release import Parity, Prompt, Release
from verdictree.tree import Tokens, VerdictTree, compile_tree
from verdictree_export import checkpoint as checkpoints
from verdictree_export import golden, onnx_model, parity, prompt
from verdictree_export.checkpoint import Checkpoint
from verdictree_export.graph import GuardGraph
from verdictree_export.staging import Staging

PRECISIONS = ("fp32",)
DEFAULT_MAX_TOKENS = 1024

# Called at the begin of a step with its name and its number of parts; what it returns is called with each part done.
Progress = Callable[[str, int], Callable[[int], None]]

_PARITY_CONVERSATIONS = (
    [Message("user", "How do I boil an egg?")],
    [
        Message("user", "Tell me how to pick a lock."),
        Message("assistant", "First you need a tension wrench; then push the pins up one by one."),
    ],
)


def _silent(_step: str, _parts: int) -> Callable[[int], None]:
    return lambda _done: None


def export_release(
    source: str,
    family_name: str,
    policy: Policy,
    model_repository: Path,
    *,
    number: int | None = None,
    adapter: Path | None = None,
    precision: str = "fp32",
    exploration: Exploration | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    progress: Progress = _silent,
) -> Release:
    """Export a guard as release `number` (None: the next free one) of a model repository.

    `source` is a checkpoint folder, a hub id, a GGUF file or "embedded"; `max_tokens` bounds a conversation's tokens.
    The repository's first release is pinned; a later one is only written.
    Raises UnsupportedGuard or AmbiguousGrammar where the guard cannot be exported faithfully, and then leaves the
    repository as it was.
    """
    if precision not in PRECISIONS:
        raise UnsupportedGuard(f"expected a precision among {', '.join(PRECISIONS)}, got {precision!r}")
    family, exploration = families.family(family_name), exploration or Exploration()
    load_done = progress("load the checkpoint", 1)
    guard = checkpoints.load(source, adapter)
    load_done(1)
    prompts = prompt.split(guard, family, policy)
    grammar = prompt.grammar_after(prompts, family.grammar)
    tree = compile_tree(grammar, policy.codes, guard.encode, prompt.end_tokens(guard))
    first = repository.next_number(model_repository) == 1
    number = number or repository.next_number(model_repository)
    staging = Staging(model_repository, number)
    try:
        staging.add_tokenizer(prompt.plain_text_tokenizer(guard))
        graph_done = progress("write the ONNX graph", 1)
        onnx_model.write(GuardGraph(guard.model, prompts, tree, exploration), staging.graph)
        graph_done(1)
        figures = _parity(guard, family, prompts, tree, exploration, staging.graph, progress)
        release = Release(
            number=number,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            checkpoint=guard.name,
            adapter=adapter.name if adapter else None,
            family=family.name,
            precision=precision,
            policy=policy,
            conversation=family.conversation,
            prompts=prompts,
            max_tokens=min(max_tokens, _room(guard, prompts, tree, exploration)),
            tree=tree,
            exploration=exploration,
            parity=figures,
            files={},
        )
        ids = _encode(guard, family, prompts, golden.CONVERSATIONS)
        release = staging.commit(golden.with_golden(release, staging.graph, golden.CONVERSATIONS, ids))
    finally:
        staging.discard()
    if first:
        repository.pin(model_repository, number)
        repository.keep_only_pinned(model_repository)
    return release


def _room(guard: Checkpoint, prompts: tuple[Prompt, ...], tree: VerdictTree, exploration: Exploration) -> int:
    """The conversation tokens that the model's positions leave beside the prompt and the longest verdict."""
    constant = max(len(one.prefix_ids) + len(one.suffix_ids) for one in prompts)
    verdict = max(map(len, tree.first)) + (exploration.max_labels - 1) * max(map(len, tree.further))
    room = guard.max_positions - constant - verdict
    if room < 1:
        raise UnsupportedGuard(
            f"the prompt takes {constant} tokens and a verdict up to {verdict}, but the model has only "
            f"{guard.max_positions} positions; use a shorter policy"
        )
    return room


def _parity(
    guard: Checkpoint,
    family: families.GuardFamily,
    prompts: tuple[Prompt, ...],
    tree: VerdictTree,
    exploration: Exploration,
    graph: Path,
    progress: Progress,
) -> Parity:
    conversations = _encode(guard, family, prompts, _PARITY_CONVERSATIONS)
    done = progress("compare the graph with the checkpoint", parity.num_paths(tree, exploration, len(conversations)))
    return parity.measure(graph, guard.model, prompts, tree, exploration, conversations, done)


def _encode(
    guard: Checkpoint,
    family: families.GuardFamily,
    prompts: tuple[Prompt, ...],
    conversations: Sequence[Sequence[Message]],
) -> list[tuple[int, Tokens]]:
    """(prefix id, tokens) of each conversation, as the served tokenizer encodes it."""
    tokenizer = prompt.plain_text_tokenizer(guard)
    encoded: list[tuple[int, Tokens]] = []
    for messages in conversations:
        prefix_id = prompt.ROLES.index(messages[-1].role)
        text = prompts[prefix_id].lead + family.conversation.render(messages) + prompts[prefix_id].tail
        encoded.append((prefix_id, tuple(tokenizer.encode(text, add_special_tokens=False).ids)))
    return encoded
