"""The release's graph in a bare ONNX Runtime session with default options: no server, conversations encoded before."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from benchmarks import cost, workload
from benchmarks.programs.answering import Loaded, answer, in_batches
from verdictree.repository import pinned
from verdictree.tokenization import TokenizedConversation
from verdictree_serving.offline import OfflineGuard


def load(repository: str) -> Loaded:
    """The pinned release of `repository`."""
    guard = OfflineGuard(Path(repository), pinned(Path(repository)))

    def run(batch: Sequence[TokenizedConversation]) -> dict[str, float]:
        *_, expansions = guard.infer(batch)
        tokens = sum(len(one.input_ids) for one in batch)
        return vars(cost.of_batch(guard.release, tokens, expansions))

    prompts = {mix: workload.load(mix, guard).tokenized for mix in workload.MIXES}
    return Loaded(f"onnxruntime {onnxruntime.__version__}", prompts, in_batches(run))


if __name__ == "__main__":
    answer(lambda: load(*sys.argv[1:]))
