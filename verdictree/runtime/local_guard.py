"""A release in this process, without a server: for the export that makes it, for evaluation, benchmarks and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.errors import InvalidRelease, NoVerdict
from verdictree.releases import calibration as calibrations
from verdictree.releases.calibration import Calibration
from verdictree.releases.release import GRAPH_FILE, GRAPH_MODEL, MARGINALS_MODEL, TOKENIZER_MODEL, Release
from verdictree.runtime.graph_io import OUTPUTS
from verdictree.runtime.scorer import Scorer
from verdictree.runtime.session import open_session
from verdictree.runtime.tokenization import ConversationTokenizer, TokenizedConversation, batch_feeds, load_tokenizer
from verdictree.runtime.windows import side_by_side
from verdictree.verdict import Verdict

_BATCH_SIZE = 4
Run = Callable[[Mapping[str, Any]], Sequence[Any]]  # the graph: its inputs by name in, its outputs in their order out


class LocalGuard:
    """The three steps of a request in one process, on the very code that is served: tokenizer, graph, marginals."""

    def __init__(
        self,
        release: Release,
        tokenizer: Tokenizer,
        run: Run,
        calibrations: Mapping[str, Calibration] | None = None,
    ) -> None:
        """`run` computes the release's graph; `calibrations` maps policies' names to their calibration."""
        self.release = release
        self.calibrations = dict(calibrations or {})
        self.tokenize = ConversationTokenizer(release, tokenizer)
        self.score = Scorer(release, self.calibrations)
        self._run = run

    @classmethod
    def load(
        cls,
        repository: Path,
        number: int,
        threads: int = 0,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> LocalGuard:
        """Load release `number` of a repository; `threads` 0 means one for each core, `providers` are ONNX Runtime's.

        Raises InvalidRelease where the release is damaged, or is bf16 and would run on the CPU.
        """
        release = Release.load_verified(repository, number)
        if release.precision == "bf16" and providers[0] == "CPUExecutionProvider":
            raise InvalidRelease(
                f"release {number} is bf16, which ONNX Runtime computes on a GPU only; give a GPU's provider, or "
                "export the guard in fp32, int8 or fp16"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        graph = release.folder(repository, GRAPH_MODEL) / GRAPH_FILE
        session = open_session(graph, options, providers)
        return cls(
            release,
            load_tokenizer(release.folder(repository, TOKENIZER_MODEL)),
            lambda feeds: session.run(OUTPUTS, feeds),
            calibrations.load(repository / MARGINALS_MODEL / str(number), release),
        )

    def classify(self, conversations: Sequence[Conversation]) -> list[Verdict]:
        """The verdicts of one batch; InvalidConversation where one cannot be encoded, NoVerdict where one has none."""
        return self.classify_tokenized([self.tokenize(conversation) for conversation in conversations])

    def classify_all(self, conversations: Sequence[Conversation]) -> Iterator[Verdict]:
        """The verdicts of any number of conversations, in order, computed a small batch at a time."""
        for start in range(0, len(conversations), _BATCH_SIZE):
            yield from self.classify(conversations[start : start + _BATCH_SIZE])

    def classify_tokenized(self, batch: Sequence[TokenizedConversation]) -> list[Verdict]:
        """The verdicts of a batch that is encoded already; NoVerdict where one has none."""
        pairs = zip(batch, self.infer_each(batch), strict=True)
        return [_verdict(self.score.outcome(outputs, one.prefix_ids, one.token_counts)) for one, outputs in pairs]

    def infer(self, batch: Sequence[TokenizedConversation]) -> list[Any]:
        """What the graph computes for a batch, each of one window: label_logits, log_normalizer, top_logit, expansions;
        see `unpack`."""
        return list(self._run(batch_feeds(batch)))

    def infer_each(self, batch: Sequence[TokenizedConversation]) -> list[list[Any]]:
        """What the graph computes for each conversation of a batch, as for a batch of one.

        Those of one window are computed together; those of several window by window, which takes no more memory.
        """
        together = [one for one in batch if not one.windows]
        outputs = self.infer(together) if together else []
        rows = iter([[output[i : i + 1] for output in outputs] for i in range(len(together))])
        return [
            side_by_side([self.infer([window]) for window in one.apart()]) if one.windows else next(rows)
            for one in batch
        ]

    def outcomes(self, batch: Sequence[TokenizedConversation], outputs: Sequence[Any]) -> list[Verdict | NoVerdict]:
        """What is served of a batch, from what `infer` computed for it: verdicts, or why there is none."""
        return self.score.outcomes(batch, outputs)

    def prompt_ids(self, conversation: Conversation) -> list[int]:
        """The tokens of the whole prompt that a conversation is asked with, the first where there are several."""
        tokenized = self.tokenize(conversation)
        prompt = self.release.prompt(tokenized.prefix_ids[0])
        size = len(tokenized.input_ids) // len(tokenized.prefix_ids)
        return [*prompt.prefix_ids, *tokenized.input_ids[:size].tolist(), *prompt.suffix_ids]


def _verdict(outcome: Verdict | NoVerdict) -> Verdict:
    if isinstance(outcome, NoVerdict):
        raise outcome
    return outcome
