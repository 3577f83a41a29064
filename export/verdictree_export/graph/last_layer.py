"""The last layer, computed only at the tokens whose logits are wanted: of all others keys and values are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from verdictree_export.graph.attention import VarlenPass
from verdictree_export.graph.replaced import replaced


@dataclass(frozen=True)
class LogitsPositions:
    """The `tokens` (wanted,) of a pass whose logits are wanted, and the pass in which they alone attend.

    What transformers calls `logits_to_keep`, for tokens at any place and one layer earlier.
    """

    tokens: Tensor
    varlen: VarlenPass


@contextmanager
def narrowed(model: Any, wanted: Callable[[], LogitsPositions | None]) -> Iterator[None]:
    """Let the model's last layer hand over the hidden states of the wanted tokens alone; None: of all.

    `wanted` is asked when that layer is reached: until then requests can leave.
    """
    layer = model.get_decoder().layers[-1]
    forward = layer.forward

    def run(hidden: Tensor, **inputs: Any) -> Any:
        positions = wanted()
        whole = forward(hidden, **inputs)
        if positions is None:
            return whole
        # Of the whole only keys and values are read, so tracing drops the rest.
        own = {name: at_tokens(positions.tokens, name, value) for name, value in inputs.items()}
        return forward(hidden.index_select(1, positions.tokens), **{**own, "varlen": positions.varlen})

    with replaced(layer, "forward", run):
        yield


def at_tokens(tokens: Tensor, name: str, value: Any) -> Any:
    """What a layer is given beside the hidden states, for these tokens."""
    if name.startswith("position_embeddings"):  # (1, tokens, …) each
        parts = value if isinstance(value, tuple) else (value,)
        taken = tuple(part.index_select(1, tokens) for part in parts)
        return taken if isinstance(value, tuple) else taken[0]
    axes = {"position_ids": 1, "cache_position": 0}
    return value.index_select(axes[name], tokens) if name in axes else value
