"""From policies to what is compiled of them: their prompts, the verdict tree that they share, the room they leave."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import ConversationFormat, GuardFamily
from verdictree.policy import Policy
from verdictree.releases.prompt import Prompt
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.exploration import Exploration
from verdictree.verdict_tree.tree import VerdictTree
from verdictree_export.prompts.answer_frame import end_tokens, grammar_after
from verdictree_export.prompts.checkpoint import Checkpoint
from verdictree_export.prompts.conversation_format import conversation_format
from verdictree_export.prompts.named_categories import labels_of
from verdictree_export.prompts.policy_text import check_policy
from verdictree_export.prompts.split import answer_encoder, served_tokenizer, split


class CompiledPrompts(NamedTuple):
    """The format of conversations, the prompts of all policies, the verdict tree that they share, and the tokenizer
    that is served."""

    conversation: ConversationFormat
    prompts: tuple[Prompt, ...]
    tree: VerdictTree
    tokenizer: Tokenizer


def compile_prompts(
    guard: Checkpoint, family: GuardFamily, policies: Sequence[Policy], first_labels_apart: bool | None = None
) -> CompiledPrompts:
    """Compile how a guard is asked by these policies, `first_labels_apart` as for `compile_tree`.

    Raises UnsupportedGuard, InvalidPolicy or AmbiguousGrammar where it cannot be asked by one of them.
    """
    for policy in policies:
        check_policy(guard, policy)
    form = conversation_format(guard, family, policies)
    tokenizer = served_tokenizer(guard)
    prompts = tuple(itertools.chain.from_iterable(split(guard, tokenizer, family, form, one) for one in policies))
    grammar, labels = grammar_after(prompts, family.grammar), labels_of(family, policies, prompts)
    tree = compile_tree(grammar, labels, answer_encoder(guard), end_tokens(guard), first_labels_apart)
    return CompiledPrompts(form, prompts, tree, tokenizer)


def room(guard: Checkpoint, prompts: tuple[Prompt, ...], tree: VerdictTree, exploration: Exploration) -> int:
    """The conversation tokens that the model's positions leave beside the prompt and the longest verdict."""
    constant = max(len(prompt.prefix_ids) + len(prompt.suffix_ids) for prompt in prompts)
    longest = (max(map(len, paths), default=0) for paths in (tree.verdict_tokens, tree.first, tree.further))
    verdict, first, further = longest
    answer = verdict + first + (exploration.max_labels - 1) * further
    room = guard.max_positions - constant - answer
    if room < 1:
        raise UnsupportedGuard(
            f"the prompt takes {constant} tokens and a verdict up to {answer}, but the model has only "
            f"{guard.max_positions} positions; use a shorter policy"
        )
    return room
