"""Attention for many requests packed into one sequence, put in the place of the architecture's own.

The model's own code runs on all tokens of a batch as one packed row, so that its linear layers multiply no padding.
Only attention needs to know which token belongs to which request: the pass that is under way says so.
No shape here is left to be inferred: with no path to expand there are no elements to infer it from.

For example, the shapes in the pass that is drawn in `prefill_pass`: 15 packed tokens of two requests, at most 8 in a
row, for 4 heads of 8 features which share one key head. 3 of 64 keys are the cached prefix's:

    query, packed   (1, 4, 15, 8)
    queries         (2, 4, 8, 8)
    keys            (2, 1, 61, 8)
    values          (2, 1, 61, 8)
    scores          (2, 1, 32, 64)
    mixed values    (2, 1, 32, 8)
    output, packed  (1, 15, 4, 8)

Queries are taken from the packed tokens into rows; the four heads become 4 · 8 queries of the one key head; and what
they attended to goes back to the packed tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from verdictree.errors import UnsupportedGuard
from verdictree_export.graph.key_values import KeyValues

MASK_VALUE = -1e4
"""Finite, since the cells of padding attend to nothing and a softmax over nothing would be NaN; fits half precision."""

ALIGNMENT = 64
"""Keys stand in multiples of this many, padding last. A runtime sums over keys in vectors, several at a time: with a
number of keys that vectors do not divide, or with padding in between, a longer neighbour would change the order of a
request's sums and so their last digits, which quantized layers amplify."""

_NAME = "verdictree"
_UNSUPPORTED = ("s_aux",)


@dataclass
class VarlenPass:
    """One run of the model over the packed tokens of several requests of various lengths.

    past    for each layer the segments of keys and values that the rows attend to besides this pass's own tokens
    bias    (rows, 1, queries, past + keys) added to the scores: 0 where a query attends to a key, else `MASK_VALUE`
    query_positions, key_positions  (rows, queries), (rows, past + keys)
    queries, keys   (rows, queries), (rows, keys) the packed token in each cell of the two grids, any in padding
    pack    (tokens,) the cell of the grid of queries that holds each packed token
    joined  whether past and own keys become one segment: a copy that pays where the queries are many
    layers  filled by the run: for each layer the past's segments and this pass's own
    keeps   whether the run fills `layers`; a narrowed pass reads what the pass that it was made from has filled
    """

    past: list[list[KeyValues]]
    bias: Tensor
    query_positions: Tensor
    key_positions: Tensor
    queries: Tensor
    keys: Tensor
    pack: Tensor
    joined: bool = False
    layers: list[list[KeyValues]] = field(default_factory=list)
    keeps: bool = True
    _windows: dict[int, Tensor] = field(default_factory=dict)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        softcap: float | None,
        window: int | None,
    ) -> Tensor:
        """Scaled dot-product attention, each row on its own; (1, heads, tokens, size) in, tokens second out.

        `softcap` bounds the scores, softly (Gemma 2, arXiv 2408.00118). With a `window` a query attends to its own
        position and the window - 1 before it (Mistral 7B, arXiv 2310.06825).
        """
        heads, key_heads, size = int(query.shape[1]), int(key.shape[1]), int(query.shape[3])
        rows, _, length, width = self.bias.shape
        # Grouped queries: the heads that share a key are stacked as further queries of it, so no key is repeated.
        stacked = (rows, key_heads, heads // key_heads * length)
        queries = _grid(query, self.queries).reshape(*stacked, size) * scaling
        if self.keeps:
            self._keep(layer, KeyValues(_grid(key, self.keys), _grid(value, self.keys)))
        segments = self.layers[layer]
        scores = _scores(queries, segments).reshape(rows, heads, length, width)
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        weights = torch.softmax(scores + self._bias(window), dim=-1, dtype=torch.float32)
        weights = weights.to(queries.dtype).reshape(*stacked, width)
        # Every layer's segments are as wide as the first one's, whose sizes a runtime computes only once.
        mixed = _mixed(weights, segments, [segment.keys.shape[2] for segment in self.layers[0]])
        cells = mixed.reshape(rows, heads, length, size).transpose(1, 2).reshape(rows * length, heads, size)
        return cells.index_select(0, self.pack).unsqueeze(0)

    def narrowed(self, columns: slice) -> VarlenPass:
        """The pass of these columns of the grid of queries alone, over the keys and values that this one keeps."""
        bias, positions = self.bias[:, :, columns], self.query_positions[:, columns]
        queries = torch.arange(positions.shape[0] * positions.shape[1])
        return replace(
            self,
            bias=bias,
            query_positions=positions,
            queries=queries.reshape(positions.shape[0], positions.shape[1]),
            pack=queries,
            keeps=False,
            _windows={},
        )

    def _bias(self, window: int | None) -> Tensor:
        if window is None:
            return self.bias
        if window not in self._windows:  # layers of one kind share it
            near = self.query_positions.unsqueeze(2) - self.key_positions.unsqueeze(1) < window
            self._windows[window] = self.bias + attention_bias(near)
        return self._windows[window]

    def _keep(self, layer: int, own: KeyValues) -> None:
        past = self.past[layer]
        self.layers.append([past[0].append(own)] if self.joined else [*past, own])


def _grid(packed: Tensor, cells: Tensor) -> Tensor:
    """(1, heads, tokens, size) → (rows, heads, columns, size), by the token in each cell."""
    heads, size = int(packed.shape[1]), int(packed.shape[3])
    grid = packed.index_select(2, cells.flatten())
    return grid.reshape(heads, cells.shape[0], cells.shape[1], size).transpose(0, 1)


def aligned(number: Any) -> Any:
    """The least multiple of `ALIGNMENT` that is not below `number`, a size."""
    return (number + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


def attention_bias(visible: Tensor) -> Tensor:
    """(rows, queries, keys) which keys a query attends to → what is added to the scores, (rows, 1, queries, keys)."""
    return torch.where(visible, 0.0, MASK_VALUE).unsqueeze(1)


def _scores(queries: Tensor, segments: list[KeyValues]) -> Tensor:
    products = [torch.matmul(queries, segment.keys.transpose(2, 3)) for segment in segments]
    return products[0] if len(products) == 1 else torch.cat(products, dim=-1)


def _mixed(weights: Tensor, segments: list[KeyValues], widths: list[int]) -> Tensor:
    parts = _split(weights, widths)
    products = [torch.matmul(part, segment.values) for part, segment in zip(parts, segments, strict=True)]
    return functools.reduce(torch.add, products)


def _split(weights: Tensor, widths: list[int]) -> list[Tensor]:
    parts, start = [], 0
    for width in widths[:-1]:
        parts.append(weights[..., start : start + width])
        start = start + width
    return [*parts, weights[..., start:] if parts else weights]


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: None,
    *,
    scaling: float,
    varlen: VarlenPass,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    for name in _UNSUPPORTED:
        if rest.get(name) is not None:
            raise UnsupportedGuard(f"{type(module).__name__} attends with {name}, which varlen attention lacks")
    return varlen.attend(module.layer_idx, query, key, value, scaling, softcap, sliding_window), None


AttentionInterface.register(_NAME, _attention)


@contextmanager
def varlen_attention(model: Any) -> Iterator[None]:
    """Let the model's layers attend by the `varlen` argument of the call, a VarlenPass."""
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
