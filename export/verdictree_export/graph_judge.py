"""Verdicts of a release that is being made: its graph on its own conversations, a small batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.release import Release
from verdictree.scorer import Scorer
from verdictree.tokenization import ConversationTokenizer, TokenizedConversation
from verdictree.verdict import Verdict
from verdictree_export.graph_session import GraphSession

BATCH = 4


class GraphJudge:
    """A release's graph as a file, asked as the server will ask it."""

    def __init__(self, release: Release, graph: Path, tokenizer: Tokenizer, prepack: bool = False) -> None:
        """`prepack` pays where there is much to judge."""
        self._score = Scorer(release)
        self._tokenize = ConversationTokenizer(release, tokenizer)
        self._session = GraphSession(graph, prepack=prepack)

    def __call__(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """The verdicts, in order."""
        tokenized = [self._tokenize(conversation) for conversation in conversations]
        batches = (tokenized[start : start + BATCH] for start in range(0, len(tokenized), BATCH))
        return [verdict for batch in batches for verdict in self._judge(batch)]

    def _judge(self, batch: Sequence[TokenizedConversation]) -> list[Verdict]:
        prefix_ids = [one.prefix_ids for one in batch]
        outputs = self._session.run([one.input_ids for one in batch], prefix_ids)
        counts = [(one.num_tokens, one.num_truncated) for one in batch]
        return self._score(*outputs, prefix_ids=prefix_ids, token_counts=counts)
