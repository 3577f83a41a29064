"""From a request's JSON to the token ids that the graph takes: the first step of a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.errors import InvalidConversation
from verdictree.graph_io import feeds
from verdictree.release import TOKENIZER_FILE, Release


@dataclass(frozen=True)
class TokenizedConversation:
    """A request as the graph takes it.

    prefix_ids     (questions,) the prefix-bank entries that ask about the conversation, mostly one
    input_ids      (questions * tokens,) the conversation's ids, once for each question
    num_tokens     ids that are judged
    num_truncated  ids that were cut off before
    """

    input_ids: npt.NDArray[np.int64]
    prefix_ids: tuple[int, ...]
    num_tokens: int
    num_truncated: int


def batch_feeds(batch: Sequence[TokenizedConversation]) -> dict[str, npt.NDArray[Any]]:
    """The graph's inputs for a batch."""
    return feeds([one.input_ids for one in batch], [one.prefix_ids for one in batch])


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer in a release's directory of `guard_tokenizer`, to which control tokens are plain text."""
    tokenizer: Tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
    tokenizer.encode_special_tokens = True  # not part of the file
    return tokenizer


class ConversationTokenizer:
    """Renders and encodes conversations for one release.

    Text that spells a control token is encoded as plain text, so no message can close its turn.
    """

    def __init__(self, release: Release, tokenizer: Tokenizer) -> None:
        """`tokenizer` must encode control tokens as plain text, as `load_tokenizer` makes it."""
        self._release = release
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, release: Release, directory: Path) -> Self:
        """The tokenizer in a release's directory of `guard_tokenizer`."""
        return cls(release, load_tokenizer(directory))

    def __call__(self, conversation: Conversation) -> TokenizedConversation:
        """Encode a validated conversation.

        Raises InvalidConversation for a policy that the release lacks, for a role that the policy does not judge, and
        for more than the release's `max_tokens` tokens unless it asks for truncation, which keeps the last ones.
        """
        release = self._release
        policy = release.policy_named(conversation.policy)
        prefix_ids = release.prefix_ids(policy, conversation.judged_role)
        prompt = release.prompts[prefix_ids[0]]
        text = prompt.text(release.conversation.render(conversation.messages))
        ids = np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
        excess = max(0, len(ids) - release.max_tokens)
        if excess and conversation.truncate is None:
            raise InvalidConversation(
                f"expected at most {release.max_tokens} tokens, got {len(ids)}; "
                'shorten the conversation, or send "truncate": "head" to judge its last tokens only'
            )
        return TokenizedConversation(np.tile(ids[excess:], len(prefix_ids)), prefix_ids, len(ids) - excess, excess)
