"""Verdicts of a release that is being made: its graph on its own conversations, a small batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.release import Release
from verdictree.scorer import Scorer
from verdictree.tokenization import ConversationTokenizer, TokenizedConversation, batch_feeds
from verdictree.verdict import Verdict
from verdictree_export.graph_session import GraphSession

_BATCH = 4


def batches(
    release: Release, tokenizer: Tokenizer, conversations: Sequence[Conversation]
) -> Iterator[list[TokenizedConversation]]:
    """The conversations as the release's graph takes them, in small batches."""
    tokenize = ConversationTokenizer(release, tokenizer)
    for start in range(0, len(conversations), _BATCH):
        yield [tokenize(conversation) for conversation in conversations[start : start + _BATCH]]


class GraphJudge:
    """A release's graph as a file, asked as the server will ask it."""

    def __init__(self, release: Release, graph: Path, tokenizer: Tokenizer, prepack: bool = False) -> None:
        """`prepack` pays where there is much to judge."""
        self._release = release
        self._tokenizer = tokenizer
        self._score = Scorer(release)
        self._session = GraphSession(graph, prepack=prepack)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """The whole prompt that a conversation is asked with, the first one where there are several."""
        ((one,),) = batches(self._release, self._tokenizer, [conversation])
        prompt = self._release.prompts[one.prefix_ids[0]]
        return [*prompt.prefix_ids, *one.input_ids[: one.num_tokens].tolist(), *prompt.suffix_ids]

    def __call__(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """The verdicts, in order."""
        return [
            verdict
            for batch in batches(self._release, self._tokenizer, conversations)
            for verdict in self._score.of_batch(batch, self._session.run(batch_feeds(batch)))
        ]
