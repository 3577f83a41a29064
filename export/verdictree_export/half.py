"""From an fp32 graph to one in half precision, if that judges as the fp32 one does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.errors import NoVerdict, UnsupportedGuard
from verdictree.releases.proofs import QuantizationQuality
from verdictree.releases.release import Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict import Verdict
from verdictree_export import golden, parity
from verdictree_export.int8 import quality_gate
from verdictree_export.int8.conversion import Example
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.half_precision import to_half
from verdictree_export.tolerances import PRECISIONS


def convert(
    graph: Path, release: Release, tokenizer: Tokenizer, examples: Sequence[Example], max_p99: float
) -> QuantizationQuality:
    """Convert the fp32 `graph` of a release to the release's half precision, in place; how faithful it stays.

    Both graphs judge the examples, or without any the conversations that every export asks about: few, but enough to
    notice a guard whose numbers overflow. Raises UnsupportedGuard where the 99th percentile of |ΔP(unsafe)| is above
    `max_p99`, or a number is not finite.
    """
    conversations = [example.conversation for example in examples] or _asked_anyway(release)
    labels = [example.labels for example in examples if example.labels is not None]
    complete = labels if examples and len(labels) == len(examples) else None
    kind = ir.DataType[str(PRECISIONS[release.precision].half)]
    with tempfile.TemporaryDirectory(dir=graph.parent) as scratch:
        whole = Path(scratch)
        for file in [one for one in graph.parent.iterdir() if one.is_file()]:
            file.rename(whole / file.name)
        model = ir.load(whole / graph.name)
        to_half(model, kind)
        onnx_model.save(model, graph)
        del model
        reference = _verdicts(release, tokenizer, whole / graph.name, conversations)
    figures = quality_gate.measure(reference, _verdicts(release, tokenizer, graph, conversations), complete)
    quality_gate.check(figures, {}, max_p99)
    return figures


def _asked_anyway(release: Release) -> list[Conversation]:
    messages = [*golden.CONVERSATIONS, *parity.CONVERSATIONS.values()]
    return [Conversation(tuple(one)) for one in messages if one[-1].role in release.policy.roles]


def _verdicts(
    release: Release, tokenizer: Tokenizer, graph: Path, conversations: Sequence[Conversation]
) -> list[Verdict]:
    guard = LocalGuard(release, tokenizer, GraphSession(graph, prepack=True).run)
    try:
        return list(guard.classify_all(conversations))
    except NoVerdict as exc:
        raise UnsupportedGuard(
            f"expected finite numbers in {release.precision}, got infinity or NaN; the guard's are too large for the "
            "precision: export it in fp32 or bf16"
        ) from exc
