"""After which layer to leave: where the most is saved at the wanted risk, by cross-validation on the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from verdictree.conversation import Conversation
from verdictree.errors import InvalidConversation, UnsupportedGuard
from verdictree.releases.calibration import Calibration
from verdictree.releases.release import Release
from verdictree.runtime.graph_io import INPUTS
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict import Verdict
from verdictree_export.early_exit import probe_fit
from verdictree_export.early_exit.observations import Floats, Observations
from verdictree_export.graph.exit_probe import probe_features
from verdictree_export.graph.guard_graph import GuardGraph

NUM_CONVERSATIONS = 400
_NUM_CANDIDATES = 6


def candidates(num_layers: int) -> list[int]:
    """Layers from a sixth to half of the way: before, guards know little; after, little is saved.

    Raises UnsupportedGuard for a model of fewer than three layers.
    """
    found = {round(at) for at in np.linspace(num_layers / 6, num_layers / 2, _NUM_CANDIDATES)}
    layers = sorted(layer for layer in found if 1 <= layer <= num_layers - 2)
    if not layers:
        raise UnsupportedGuard(f"expected a guard of three layers or more for an early exit, got {num_layers}")
    return layers


def choose(
    graph: GuardGraph,
    release: Release,
    tokenizer: Tokenizer,
    calibrations: Mapping[str, Calibration],
    conversations: Sequence[Conversation],
    max_missed: float,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """After how many layers conversations are to leave.

    The checkpoint itself, as `graph`, is asked about up to `NUM_CONVERSATIONS` of the conversations, taken evenly, how
    its verdict begins, no more; `advance` is called with 1 after each. The saving of a layer is the share of
    conversations that leave there where `max_missed` of the alerts do, times the share of layers that they do not pass.
    Raises UnsupportedGuard for a model of fewer than three layers, and for conversations that are all alike.
    """
    layers = candidates(len(graph.model.get_decoder().layers))
    sample = conversations[:: max(1, len(conversations) // NUM_CONVERSATIONS)][:NUM_CONVERSATIONS]
    features: dict[int, list[Floats]] = {layer: [] for layer in layers}
    asked, verdicts = list[Conversation](), list[Verdict]()
    guard = LocalGuard(release, tokenizer, lambda feeds: _run(graph, feeds), calibrations)
    for conversation in sample:
        try:
            tokenized = guard.tokenize(conversation)
        except InvalidConversation:
            continue
        if not tokenized.windows:
            with torch.inference_mode(), _kept(graph, layers, len(tokenized.input_ids), features):
                verdicts += guard.classify_tokenized([tokenized])
            asked.append(conversation)
        advance(1)
    total = len(graph.model.get_decoder().layers)
    try:
        savings = {
            layer: _saving(features[layer], asked, verdicts, max_missed) * (1 - layer / total) for layer in layers
        }
    except ValueError as exc:
        raise UnsupportedGuard(f"expected conversations of both kinds, plainly safe and not: {exc}") from exc
    return max(savings, key=lambda layer: savings[layer])


def _saving(
    features: Sequence[Floats], conversations: Sequence[Conversation], verdicts: Sequence[Verdict], max_missed: float
) -> float:
    observed = Observations.of(conversations, np.stack(features), verdicts)
    return probe_fit.saving(probe_fit.fit(observed, max_missed).log_odds, observed.alert, max_missed)


def _run(graph: GuardGraph, feeds: Mapping[str, Any]) -> list[Any]:
    outputs = graph.without_paths(*(torch.from_numpy(feeds[name]) for name in INPUTS))
    return [output.numpy() for output in outputs]


@contextmanager
def _kept(
    graph: GuardGraph, layers: Sequence[int], num_tokens: int, features: dict[int, list[Floats]]
) -> Iterator[None]:
    """Keep what a probe would read of what enters each of the layers."""
    policies = graph.policies
    entry = num_tokens + policies.prefix_cache.suffix_and_root_width - policies.root_trie.tokens.shape[0]

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            own = torch.zeros(num_tokens, dtype=torch.long)
            features[layer].append(probe_features(inputs[0][0], torch.tensor([entry]), own)[0].numpy())

        return hook

    handles = [graph.model.get_decoder().layers[layer].register_forward_pre_hook(keep(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
