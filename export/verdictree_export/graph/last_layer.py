"""The last layer, computed at the tokens that are read alone: of all others only its keys and values are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import Tensor

from verdictree_export.graph.attention import PackedPass


@dataclass(frozen=True)
class Reading:
    """The `tokens` (read,) of a pass whose last hidden states are wanted, and the pass in which they alone attend."""

    tokens: Tensor
    packed: PackedPass


@contextmanager
def narrowed(model: Any, reading: Reading | None) -> Iterator[None]:
    """Let the model's last layer hand over the hidden states of the tokens to be read alone; None: of all."""
    if reading is None:
        yield
        return
    layer, tokens = model.get_decoder().layers[-1], reading.tokens
    forward = layer.forward

    def run(hidden: Tensor, **inputs: Any) -> Any:
        forward(hidden, **inputs)  # for its keys and values; nothing reads the rest, so tracing drops it
        own = {name: _at(tokens, name, value) for name, value in inputs.items()}
        return forward(hidden.index_select(1, tokens), **{**own, "packed": reading.packed})

    with patch.object(layer, "forward", run):
        yield


def _at(tokens: Tensor, name: str, value: Any) -> Any:
    """What a layer is given beside the hidden states, for these tokens."""
    if name.startswith("position_embeddings"):  # (1, tokens, …) each
        parts = value if isinstance(value, tuple) else (value,)
        taken = tuple(part.index_select(1, tokens) for part in parts)
        return taken if isinstance(value, tuple) else taken[0]
    axes = {"position_ids": 1, "cache_position": 0}
    return value.index_select(axes[name], tokens) if name in axes else value
