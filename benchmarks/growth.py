"""How a request's time grows: with its conversation, the batch, the categories, the policies, and the labels followed.

In a bare ONNX Runtime session of one thread, which is what a request is run with. Length and batch are measured on the
release itself. What the others vary is compiled into a release, so these are exports of a random model with the
checkpoint's shapes and tokenizer and few blocks: their times compare with each other only. Its verdicts are all equally
unlikely, hence nothing is expanded while categories and policies grow; for the depth of labels the pruning threshold
is 0, hence all that the beam width allows is.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import cost
from verdictree.conversation import Conversation, Message
from verdictree.policy import Category, Policy
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.tokenization import TokenizedConversation
from verdictree.verdict_tree.exploration import Exploration

LENGTHS = (16, 64, 256, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)
CATEGORIES = (2, 8, 32, 64)
POLICIES = (1, 4, 32)
DEPTHS = (1, 2, 3, 4)
_BLOCKS = 4
_TYPICAL_LENGTH = 35
_SECONDS = 1.5  # of measuring, for each row
_LEAST_RUNS = 3


@dataclass(frozen=True)
class Row:
    """One line of the table: what was varied, its value, and the median time and computed tokens of one request."""

    varied: str
    value: int
    ms_per_request: float
    computed_tokens: float


def of_release(guard: LocalGuard, sample: TokenizedConversation) -> Iterator[Row]:
    """Conversation length and batch, on one release; `sample` is repeated or cut to the wanted number of tokens."""
    for length in (length for length in LENGTHS if length <= guard.release.max_tokens):
        yield _row("conversation tokens", length, guard, [_of_length(sample, length)])
    for batch in BATCHES:
        yield _row("batch", batch, guard, [_of_length(sample, _TYPICAL_LENGTH)] * batch)


def of_exports(checkpoint: str) -> Iterator[Row]:
    """Categories, policies and depth of labels, on exports of a random model shaped like `checkpoint`."""
    from benchmarks import random_checkpoint

    with tempfile.TemporaryDirectory() as scratch:
        model = random_checkpoint.write(Path(scratch), checkpoint, num_hidden_layers=_BLOCKS)
        for count in CATEGORIES:
            yield _exported("categories", count, model, [_policy("only", count)], Exploration())
        for count in POLICIES:
            policies = [_policy(f"policy-{number}", 8) for number in range(count)]
            yield _exported("policies", count, model, policies, Exploration())
        for depth in DEPTHS:
            everything = Exploration(depth, pruning_threshold=0.0)
            yield _exported("labels followed", depth, model, [_policy("only", 14)], everything)


def _exported(varied: str, value: int, model: Path, policies: Sequence[Policy], exploration: Exploration) -> Row:
    from verdictree_export.exporter import export_release

    with tempfile.TemporaryDirectory() as repository:
        release = export_release(
            str(model), "instruct", policies, Path(repository), exploration=exploration, max_off_grammar=1.0
        )
        guard = LocalGuard.load(Path(repository), release.number, threads=1)
        sample = guard.tokenize(Conversation((Message("user", "How do I boil an egg?"),)))
        return _row(varied, value, guard, [_of_length(sample, _TYPICAL_LENGTH)])


def _row(varied: str, value: int, guard: LocalGuard, batch: Sequence[TokenizedConversation]) -> Row:
    *_, expansions = guard.infer(batch)  # warms up, too
    tokens = sum(len(conversation.input_ids) for conversation in batch)
    computed = cost.of_batch(guard.release, tokens, expansions).computed_tokens
    seconds: list[float] = []
    while sum(seconds) < _SECONDS or len(seconds) < _LEAST_RUNS:
        start = time.perf_counter()
        guard.infer(batch)
        seconds.append(time.perf_counter() - start)
    return Row(varied, value, 1000 * statistics.median(seconds) / len(batch), computed / len(batch))


def _of_length(sample: TokenizedConversation, length: int) -> TokenizedConversation:
    return TokenizedConversation(np.resize(sample.input_ids, length), sample.prefix_ids, length, 0)


def _policy(name: str, count: int) -> Policy:
    categories = tuple(Category(f"S{number}", f"Hazard {number}") for number in range(1, count + 1))
    return Policy(name=name, version="1", categories=categories)
