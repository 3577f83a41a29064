"""The release's graph in a bare ONNX Runtime session, one thread a conversation as in Triton; all is encoded before."""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime

from benchmarks import cost, workload
from benchmarks.programs.answering import Loaded, answer, side_by_side
from verdictree.releases.repository import pinned
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import TokenizedConversation


def load(repository: str) -> Loaded:
    """The pinned release of `repository`."""
    guard = LocalGuard.load(Path(repository), pinned(Path(repository)), threads=1)

    def run(conversation: TokenizedConversation) -> dict[str, float]:
        *_, expansions = guard.infer([conversation])
        return vars(cost.of_batch(guard.release, len(conversation.input_ids), expansions))

    prompts = {mix: workload.load(mix, guard).tokenized for mix in workload.MIXES}
    return Loaded(f"onnxruntime {onnxruntime.__version__}", prompts, side_by_side(run))


if __name__ == "__main__":
    answer(lambda: load(*sys.argv[1:]))
