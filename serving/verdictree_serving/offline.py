"""The served pipeline in one process, without a server: for evaluation, parity and tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from verdictree import calibration as calibrations
from verdictree import release as releases
from verdictree.conversation import Conversation
from verdictree.errors import NoVerdict
from verdictree.graph_io import OUTPUTS
from verdictree.scorer import Scorer
from verdictree.session import open_session
from verdictree.tokenization import ConversationTokenizer, TokenizedConversation, batch_feeds
from verdictree.verdict import Verdict


class OfflineGuard:
    """One release of a model repository, loaded into this process."""

    def __init__(
        self,
        repository: Path,
        number: int,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Load release `number`; `threads` 0 means one for each core, `providers` are ONNX Runtime's.

        Raises InvalidRelease where the release is damaged.
        """
        self.release = releases.load_verified(repository, number)
        self.tokenize = ConversationTokenizer.load(
            self.release, self.release.folder(repository, releases.TOKENIZER_MODEL)
        )
        self.calibrations = calibrations.load(repository / releases.MARGINALS_MODEL / str(number), self.release)
        self.score = Scorer(self.release, self.calibrations)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = self.release.folder(repository, releases.GRAPH_MODEL) / releases.GRAPH_FILE
        self.session = open_session(graph, options, providers)

    def classify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """The verdicts of one batch; InvalidConversation where one cannot be encoded, NoVerdict where one has none."""
        return self.classify_tokenized([self.tokenize(conversation) for conversation in conversations])

    def classify_tokenized(self, batch: Sequence[TokenizedConversation]) -> list[Verdict]:
        """The verdicts of a batch that is encoded already; NoVerdict where one has none."""
        return list(map(_verdict, self.outcomes(batch, self.infer(batch))))

    def infer(self, batch: Sequence[TokenizedConversation]) -> list[Any]:
        """What the graph computes for a batch: label_logits, log_normalizer, top_logit, expansions; see `unpack`."""
        return list(self.session.run(OUTPUTS, batch_feeds(batch)))

    def outcomes(self, batch: Sequence[TokenizedConversation], outputs: Sequence[Any]) -> list[Verdict | NoVerdict]:
        """What is served of a batch, from what `infer` computed for it: verdicts, or why there is none."""
        return self.score.outcomes(batch, outputs)


def _verdict(outcome: Verdict | NoVerdict) -> Verdict:
    if isinstance(outcome, NoVerdict):
        raise outcome
    return outcome
