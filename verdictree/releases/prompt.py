"""The constant parts of a prompt, as a release holds them."""

from __future__ import annotations

import msgspec

from verdictree.conversation import Role
from verdictree.families.marked_text import MarkedText, joined
from verdictree.verdict_tree.trie import Tokens


class Prompt(msgspec.Struct, frozen=True, rename={"uncached_before": "lead", "uncached_after": "tail"}):
    """One entry of the graph's prefix KV cache: how a policy, or one category of it, asks about messages of a role.

    The whole prompt is `prefix + uncached_before + conversation + uncached_after + suffix`.
    Prefix and suffix are compiled into the graph. The uncached texts are constant too, mostly empty: the words that
    stand between the conversation and the nearest border at which the tokenizer never merges tokens. They are encoded
    with each conversation.
    """

    policy: str
    role: Role
    prefix: str
    uncached_before: str
    uncached_after: str
    suffix: str
    prefix_ids: Tokens
    suffix_ids: Tokens
    category: str | None = None

    def text(self, conversation: str) -> str:
        """What is encoded of a request: its rendered conversation, between the uncached texts."""
        return self.uncached_before + conversation + self.uncached_after

    def marked(self, conversation: MarkedText) -> MarkedText:
        """The same with its control tokens apart."""
        return joined((self.uncached_before,), conversation, (self.uncached_after,))
