"""The verdict head: what the graph tells of each node of the verdict tree, in place of the full vocabulary's logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from verdictree_export.graph.trie_paths import Nodes


def verdict_head(model: Any, hidden: Tensor, vocabulary: Tensor) -> Nodes:
    """Logits of the label vocabulary and what normalizes them, for hidden (rows, nodes, size)."""
    rows, nodes, size = hidden.shape
    packed = hidden.reshape(1, rows * nodes, int(size))
    logits = _logits(model, packed).float().reshape(rows, nodes, model.config.vocab_size)
    top_logit = logits.amax(dim=-1)
    # The same as logsumexp, which ONNX Runtime computes eight times as slowly, with forty times the error.
    log_normalizer = top_logit - torch.log_softmax(logits, dim=-1).amax(dim=-1)
    return Nodes(logits.index_select(-1, vocabulary), log_normalizer, top_logit)


def _logits(model: Any, hidden: Tensor) -> Tensor:
    """The LM head, with what some architectures do to its output; parity refuses a model that does anything else."""
    logits = model.get_output_embeddings()(hidden)
    softcap = getattr(model.config, "final_logit_softcapping", None)  # Gemma 2 and 3
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return logits / getattr(model.config, "logits_scaling", 1.0)  # type: ignore[no-any-return]  # Granite
