"""The served pipeline in one process, without a server: for evaluation, parity and tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from verdictree import release as releases
from verdictree.conversation import Conversation
from verdictree.scorer import Scorer
from verdictree.verdict import Verdict
from verdictree_serving.tokenization import ConversationTokenizer, TokenizedConversation

GRAPH_FILE = "model.onnx"


class OfflineGuard:
    """One release of a model repository, loaded into this process."""

    def __init__(self, repository: Path, number: int, threads: int = 0) -> None:
        """Load release `number`; `threads` 0 means one for each core. InvalidRelease where it is damaged."""
        self.release = releases.load_verified(repository, number)
        self.tokenize = ConversationTokenizer(self.release, repository / releases.TOKENIZER_MODEL / str(number))
        self.score = Scorer(self.release)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            repository / releases.GRAPH_MODEL / str(number) / GRAPH_FILE, options, providers=["CPUExecutionProvider"]
        )

    def classify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """The verdicts of one batch; InvalidConversation where one cannot be encoded."""
        return self.classify_tokenized([self.tokenize(conversation) for conversation in conversations])

    def classify_tokenized(self, batch: Sequence[TokenizedConversation]) -> list[Verdict]:
        """The verdicts of a batch that is encoded already."""
        prefix_ids = np.array([[one.prefix_id] for one in batch], dtype=np.int32)
        outputs = self.session.run(
            ["label_logits", "log_normalizer", "top_logit", "expansions"],
            {
                "input_ids": np.concatenate([one.input_ids for one in batch]),
                "row_ends": np.cumsum([len(one.input_ids) for one in batch]).astype(np.int32),
                "prefix_id": prefix_ids,
            },
        )
        counts = [(len(one.input_ids), one.num_truncated) for one in batch]
        return self.score(*outputs, prefix_ids=prefix_ids[:, 0].tolist(), token_counts=counts)
