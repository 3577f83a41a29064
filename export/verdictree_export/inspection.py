"""What an export of a checkpoint would look like, without its weights: family, prompt split, verdict tree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from verdictree import families
from verdictree.families.guard_family import GuardFamily
from verdictree.policy import Policy, check_distinct
from verdictree.releases.release import Prompt
from verdictree.verdict_tree.tree import Tokens, VerdictTree
from verdictree_export.prompts import checkpoint as checkpoints
from verdictree_export.prompts import compilation
from verdictree_export.prompts.checkpoint import Checkpoint

AUTO = "auto"
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
    """What was found; `head` is the first trie of the verdict tree, `tails` what follows the labels of each ending."""

    guard: Checkpoint
    family: GuardFamily
    prompts: tuple[Prompt, ...]
    tree: VerdictTree
    head: tuple[Branch, ...]
    tails: dict[tuple[str, ...], tuple[Branch, ...]]

    @property
    def architecture(self) -> str:
        """The model type of the checkpoint's configuration."""
        return str(self.guard.model.config.model_type)


def resolve(guard: Checkpoint, family_name: str) -> GuardFamily:
    """The family of this name, for "auto" the one that the checkpoint's chat template shows."""
    if family_name != AUTO:
        return families.family(family_name)
    return families.recognize(guard.tokenizer.chat_template or "")


def inspect(source: str, family_name: str, policies: Sequence[Policy]) -> Inspection:
    """Look at a checkpoint without loading its weights.

    Raises UnsupportedGuard or AmbiguousGrammar where it could not be exported as this family with these policies.
    """
    check_distinct(tuple(policies))
    guard = checkpoints.load_outline(source)
    family = resolve(guard, family_name)
    prompts, tree = compilation.compile_prompts(guard, family, policies)
    words = {word: answer.ruling for word, answer in zip(tree.words, tree.grammar.answers, strict=True)}
    places = itertools.product(range(len(tree.lists)), enumerate(tree.labels))
    first = {tree.verdict_tokens((number, number * len(tree.labels) + i)): label for number, (i, label) in places}

    def branches(outcomes: dict[Tokens, str]) -> tuple[Branch, ...]:
        return _branches(outcomes, (), lambda token: str(guard.tokenizer.decode([token])))

    tails = {}
    for ending, closings in enumerate(tree.closings):
        alike = tuple(label for label, its in zip(tree.labels, tree.ending, strict=True) if its == ending)
        further = dict(zip(tree.further_after(ending), tree.labels, strict=True))
        tails[alike] = branches(further | dict.fromkeys(closings, "end"))
    return Inspection(guard, family, prompts, tree, branches(words | first), tails)


def _branches(outcomes: dict[Tokens, str], begun: Tokens, decode: Callable[[int], str]) -> tuple[Branch, ...]:
    depth = len(begun)
    onward = dict.fromkeys(path[depth] for path in outcomes if path[:depth] == begun and len(path) > depth)
    paths = ((token, (*begun, token)) for token in onward)
    return tuple(
        Branch(decode(token), outcomes.get(path, ""), _branches(outcomes, path, decode)) for token, path in paths
    )
