"""What an export of a checkpoint would look like, without its weights: family, prompt split, verdict tree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verdictree import families
from verdictree.families.guard_family import ConversationFormat, GuardFamily
from verdictree.policy import Policy, check_distinct
from verdictree.releases.prompt import Prompt
from verdictree.verdict_tree.tree import VerdictTree
from verdictree.verdict_tree.trie import Tokens
from verdictree_export.defaults import FAMILY
from verdictree_export.prompts import checkpoint as checkpoints
from verdictree_export.prompts import compilation
from verdictree_export.prompts.checkpoint import Checkpoint

# What the test suite exports with small random weights. Others are tried; the comparison at export decides.
TESTED_ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "granite", "llama4_text")


@dataclass(frozen=True)
class Branch:
    """A token as a person reads it, what the answer has become where it ends one there, and what can follow."""

    text: str
    outcome: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class Inspection:
    """What was found: `answers` are the answers up to a first label, `continuations` what follows the labels of each
    continuation class."""

    guard: Checkpoint
    family: GuardFamily
    conversation: ConversationFormat
    prompts: tuple[Prompt, ...]
    tree: VerdictTree
    answers: tuple[Branch, ...]
    continuations: dict[tuple[str, ...], tuple[Branch, ...]]

    @property
    def differences(self) -> tuple[str, ...]:
        """Where the checkpoint's template writes conversations otherwise than the family's makers publish."""
        published, found = self.family.conversation, self.conversation
        rows = [
            f"a turn of role {role}: published {published.turns.get(role)!r}, this template {text!r}"
            for role, text in found.turns.items()
            if text != published.turns.get(role)
        ]
        if found.trims != published.trims:
            kept = {True: "dropped", False: "kept"}
            rows.append(f"white space around a message: published {kept[published.trims]}, here {kept[found.trims]}")
        for role in found.turns:
            wanted, got = (form.reads.get(role) for form in (published, found))
            if wanted != got and role in {prompt.role for prompt in self.prompts}:
                read = [", ".join(roles) if roles else "all" for roles in (wanted, got)]
                rows.append(f"messages read where the last is of role {role}: published {read[0]}, here {read[1]}")
        return tuple(rows)

    @property
    def architecture(self) -> str:
        """The model type of the checkpoint's configuration."""
        return str(self.guard.model.config.model_type)


def resolve(guard: Checkpoint, family_name: str) -> GuardFamily:
    """The family of this name, for "auto" the one that the checkpoint's chat template shows."""
    if family_name != FAMILY:
        return families.family(family_name)
    return families.recognize(guard.template or "")


def inspect(source: str, family_name: str, policies: Sequence[Policy]) -> Inspection:
    """Look at a checkpoint without loading its weights.

    Raises UnsupportedGuard or AmbiguousGrammar where it could not be exported as this family with these policies.
    """
    check_distinct(tuple(policies))
    guard = checkpoints.load_weightless(source)
    family = resolve(guard, family_name)
    form, prompts, tree, _ = compilation.compile_prompts(guard, family, policies)
    pairs = zip(tree.verdict_tokens, tree.grammar.answers, strict=True)
    verdicts: dict[Tokens, str] = {tokens: answer.verdict_class for tokens, answer in pairs}
    places = itertools.product(range(len(tree.lists)), enumerate(tree.labels))
    first = {tree.path_tokens(tree.path(number, [i])): label for number, (i, label) in places}

    def branches(outcomes: dict[Tokens, str]) -> tuple[Branch, ...]:
        return _branches(outcomes, (), lambda token: str(guard.tokenizer.decode([token])))

    continuations = {}
    for number, suffixes in enumerate(tree.answer_suffixes):
        alike = tuple(label for i, label in enumerate(tree.labels) if tree.continuation_class[i] == number)
        further = dict(zip(tree.after_class(number).label_paths, tree.labels, strict=True))
        continuations[alike] = branches(further | dict.fromkeys(suffixes, "end"))
    return Inspection(guard, family, form, prompts, tree, branches(verdicts | first), continuations)


def _branches(outcomes: dict[Tokens, str], begun: Tokens, decode: Callable[[int], str]) -> tuple[Branch, ...]:
    depth = len(begun)
    onward = dict.fromkeys(path[depth] for path in outcomes if path[:depth] == begun and len(path) > depth)
    paths = ((token, (*begun, token)) for token in onward)
    return tuple(
        Branch(decode(token), outcomes.get(path, ""), _branches(outcomes, path, decode)) for token, path in paths
    )
