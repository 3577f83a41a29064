"""From an fp32 graph to an int8 one, if that judges as the fp32 one does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir
from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.errors import UnsupportedGuard
from verdictree.releases.proofs import QuantizationQuality
from verdictree.releases.release import Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import ConversationTokenizer, batch_feeds
from verdictree.verdict import Verdict
from verdictree_export.int8 import quality_gate
from verdictree_export.int8.passes import to_int8
from verdictree_export.int8.preparation import prepare
from verdictree_export.int8.quantize import most_sensitive, quantizable, sensitive
from verdictree_export.onnx_file import onnx_model
from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.passes import apply

NUM_CALIBRATION = 64
_LEAST = 2 * NUM_CALIBRATION


@dataclass(frozen=True)
class Example:
    """A conversation, and the codes of its true categories where they are known."""

    conversation: Conversation
    labels: tuple[str, ...] | None = None


def check(examples: Sequence[Example]) -> None:
    """Raise UnsupportedGuard for too few conversations, each counted once."""
    count = len(_distinct(examples))
    if count < _LEAST:
        repeated = f" ({len(examples)} with repetitions)" if count < len(examples) else ""
        raise UnsupportedGuard(
            f"expected at least {_LEAST} evaluation conversations for int8 ({NUM_CALIBRATION} to fit, the others to "
            f"judge by), got {count}{repeated}; give --evaluation FILE with conversations like those to be served"
        )


def convert(
    graph: Path, release: Release, tokenizer: Tokenizer, examples: Sequence[Example], max_p99: float
) -> QuantizationQuality:
    """Quantize the fp32 `graph` of a release in place; how faithful it stays.

    The first `NUM_CALIBRATION` examples, taken evenly, show what flows through the layers; the others are judged by
    both graphs. `max_p99` limits the 99th percentile of |ΔP(unsafe)|.
    Raises UnsupportedGuard, naming the layers that hurt, where the int8 graph judges otherwise.
    """
    fitted, held_out = _split(_distinct(examples))
    conversations = [example.conversation for example in held_out]
    labels = [example.labels for example in held_out if example.labels is not None]
    complete = labels if len(labels) == len(held_out) else None
    reference = _verdicts(release, tokenizer, graph, conversations)
    tokenize = ConversationTokenizer(release, tokenizer)
    with tempfile.TemporaryDirectory(dir=graph.parent) as scratch:
        prepared = Path(scratch) / graph.name
        statistics = prepare(graph, prepared, (batch_feeds([tokenize(one.conversation)]) for one in fitted))

        def judged(with_residual: Callable[[str], bool], keep: Collection[str] = ()) -> QuantizationQuality:
            model = ir.load(prepared)
            apply(to_int8(statistics, keep, with_residual), model)
            onnx_model.save(model, graph)
            del model
            return quality_gate.measure(reference, _verdicts(release, tokenizer, graph, conversations), complete)

        figures = judged(most_sensitive)
        if quality_gate.passes(figures, max_p99):
            return figures
        figures = judged(sensitive)  # slower
        layers = quantizable(ir.load(prepared))

        def alone(kind: str) -> QuantizationQuality:
            return judged(sensitive, keep=[layer for layer in layers if _kind(layer) != kind])

        quality_gate.check(figures, {kind: partial(alone, kind) for kind in dict.fromkeys(map(_kind, layers))}, max_p99)
        return figures


def _split(examples: Sequence[Example]) -> tuple[Sequence[Example], Sequence[Example]]:
    """Those that show what flows through the layers, taken evenly, and those that both graphs judge."""
    fitted = examples[:: len(examples) // NUM_CALIBRATION][:NUM_CALIBRATION]
    used = {example.conversation for example in fitted}
    return fitted, [example for example in examples if example.conversation not in used]


def _verdicts(
    release: Release, tokenizer: Tokenizer, graph: Path, conversations: Sequence[Conversation]
) -> list[Verdict]:
    guard = LocalGuard(release, tokenizer, GraphSession(graph, prepack=True).run)
    return list(guard.classify_all(conversations))


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Each conversation once: judged by what it was fitted to, a graph would look more faithful than it is."""
    return list({example.conversation: example for example in reversed(examples)}.values())[::-1]


def _kind(layer: str) -> str:
    return layer.rpartition("/")[2]
