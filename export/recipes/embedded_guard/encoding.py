"""From rows to token ids, with the product's own prompt and verdict tree: training reads what serving reads."""

from __future__ import annotations

from collections.abc import Sequence

from packing import EncodedRow

from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import GuardFamily
from verdictree.policy import Policy
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.tree import VerdictTree
from verdictree_evaluation.data.formats import Row
from verdictree_export.prompts.answer_frame import end_tokens
from verdictree_export.prompts.checkpoint import Checkpoint
from verdictree_export.prompts.split import answer_encoder, served_tokenizer, split


class GuardEncoder:
    """Encodes rows for one checkpoint, family and policy.

    `splits` are the prompt's constant parts for each role, `prefix` is what comes before every row, `tree` holds the
    verdicts.
    """

    def __init__(self, checkpoint: Checkpoint, family: GuardFamily, policy: Policy) -> None:
        self._family = family
        self._tokenizer = served_tokenizer(checkpoint)
        self.splits = split(checkpoint, self._tokenizer, family, family.conversation, policy)
        self._split_of = {split.role: split for split in self.splits}
        self.tree: VerdictTree = compile_tree(
            family.grammar, policy.codes, answer_encoder(checkpoint), end_tokens(checkpoint)
        )
        prefixes = {split.prefix_ids for split in self.splits}
        if len(prefixes) != 1:
            raise UnsupportedGuard("expected one prefix for both roles, got two; rows could not share it in a step")
        self.prefix: tuple[int, ...] = prefixes.pop()

    def __call__(self, row: Row) -> EncodedRow:
        """The row's prompt after the prefix, and its verdict with the end of the turn."""
        suffix = self._split_of[row.conversation[-1].role].suffix_ids
        return EncodedRow((*self.conversation(row), *suffix), self.verdict(row.labels))

    def conversation(self, row: Row) -> tuple[int, ...]:
        """The ids between the constant prefix and suffix: what a request carries."""
        split = self._split_of[row.conversation[-1].role]
        text = split.text(self._family.conversation.render(row.conversation))
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def verdict(self, labels: Sequence[str]) -> tuple[int, ...]:
        """The tokens of the answer that names these labels, with the end of the turn."""
        named = [self.tree.labels.index(label) for label in labels]
        answer = self.tree.path_tokens(self.tree.path(0, named)) if named else self.tree.safe
        return (*answer, self.tree.end_tokens[0])
