"""Llama 4's rotary embedding in real numbers: ONNX has no complex ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from verdictree_export.graph.replaced import replaced


@contextmanager
def real_rotary(model: Any) -> Iterator[None]:
    """Let a Llama 4 model turn pairs of features by cos and sin, where its own code multiplies complex numbers.

    Models of other architectures are left as they are.
    """
    if type(model.get_decoder()).__name__ != "Llama4TextModel":
        yield
        return
    from transformers.models.llama4 import modeling_llama4

    rotary = modeling_llama4.Llama4TextRotaryEmbedding
    with replaced(rotary, "forward", _angles), replaced(modeling_llama4, "apply_rotary_emb", _turn_both):
        yield


def _angles(rotary: Any, _hidden: Tensor, position_ids: Tensor) -> Tensor:
    """cos and sin of each position's angles, (rows, tokens, pairs, 2)."""
    angles = position_ids.unsqueeze(-1).float() * rotary.inv_freq.float()
    scale = float(rotary.attention_scaling)
    return torch.stack([angles.cos(), angles.sin()], dim=-1) * scale


def _turn_both(queries: Tensor, keys: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    return _turn(queries, angles), _turn(keys, angles)


def _turn(states: Tensor, angles: Tensor) -> Tensor:
    """`states` (rows, tokens, heads, size): features 2i and 2i + 1 are the pair i."""
    size = int(states.shape[-1])
    pairs = states.float().reshape(*states.shape[:-1], size // 2, 2)
    (even, odd), (cos, sin) = pairs.unbind(-1), angles.unsqueeze(2).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.reshape(states.shape).type_as(states)
