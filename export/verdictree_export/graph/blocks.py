"""The layout of expanded paths: where their blocks stand, packed and in their requests' rows.

A block is the trie after one path of labels. Packed are the blocks of all paths. A request's row holds its own, beam
slot by beam slot, as many as the request with the most paths uses, so that the keys and values of what the blocks
attend to (prefix, conversation, suffix, shorter paths) stay where they are: nothing is copied for a path.

For example, the two requests of `prefill_pass`, the first with two likely labels, the second with one. The continuation
trie `· ,S 1` is evaluated after each; the last token of the path is its entry:

    path  request  slot  packed  positions
    S1    0        0     1 ,S 1  10 11 12
    S10   0        1     0 ,S 1  11 12 13
    S2    1        0     2 ,S 1  7 8 9

    queries 0   1 ,S 1 │ 0 ,S 1
    queries 1   2 ,S 1 │ · · ·

    attends to 1 ,S 1 0 ,S 1
    1          x ·  · · ·  ·
    ,S         x x  · · ·  ·
    1          x x  x · ·  ·
    0          · ·  · x ·  ·
    ,S         · ·  · x x  ·
    1          · ·  · x x  x

Drawn at the end are the blocks of request 0 among themselves: each is a trie of its own. What they attend to before
that is drawn in `frontier`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from verdictree_export.graph.attention import VarlenPass, aligned, attention_bias


class BeamSlots(NamedTuple):
    """Where the paths of one depth stand in a table of (batch, beam width): most probable first, no gaps.

    flat_index  (paths,) into the flattened table
    beam_width  slots that a request can use
    used        (used,) numbers of the slots that the request with the most paths uses
    batch       requests
    """

    flat_index: Tensor
    beam_width: int
    used: Tensor
    batch: int

    @classmethod
    def of(cls, flat_index: Tensor, beam_width: int, batch: int) -> BeamSlots:
        """Those of the paths at these places of the flattened (batch, beam width) table."""
        slot = flat_index - torch.div(flat_index, beam_width, rounding_mode="floor") * beam_width
        num_used = torch.cat([torch.full((1,), -1), slot]).max() + 1  # zero where no path is live
        return cls(flat_index, beam_width, torch.arange(num_used), batch)  # type: ignore[call-overload]

    @property
    def slot(self) -> Tensor:
        """(paths,) the slot within the request."""
        return self.flat_index - self.row * self.beam_width

    @property
    def row(self) -> Tensor:
        """(paths,) the request."""
        return torch.div(self.flat_index, self.beam_width, rounding_mode="floor")

    def path_number(self) -> Tensor:
        """(batch * beam width,) the path in each slot; 0 in empty ones."""
        return self.table(torch.arange(self.flat_index.shape[0]), 0)

    def table(self, values: Tensor, fill: float) -> Tensor:
        """`values` (paths, …) in a table (batch * beam width, …), `fill` in empty slots."""
        return scatter(values, self.flat_index, self.batch * self.beam_width, fill)


def visible_block(parents: BeamSlots, parent: Tensor, on_path: Tensor) -> Tensor:
    """Which keys of the blocks one label shorter each path attends to, (paths, used * nodes).

    `parent` (paths,) is the number of the path that each path goes on from, `on_path` (paths, nodes) the nodes of that
    path's block that it passes through.
    """
    slot = parents.slot.index_select(0, parent)
    own = parents.used == slot.unsqueeze(1)
    keys = parents.used.shape[0] * on_path.shape[1]
    return (own.unsqueeze(2) & on_path.unsqueeze(1)).reshape(parent.shape[0], keys)


def lay_out_blocks(
    before: VarlenPass, slots: BeamSlots, visible: Tensor, attention: Tensor, positions: Tensor
) -> VarlenPass:
    """The pass over the blocks of all paths, which follows the pass `before`.

    `visible` (paths, keys of the past) is what each path attends to, `attention` (nodes, nodes) how the nodes of a
    block attend to one another, `positions` (paths, nodes) where they stand.
    """
    size, used = attention.shape[0], slots.used.shape[0]
    blocks, queries = slots.batch * used, used * size
    padding = aligned(queries) - queries
    block = slots.row * used + slots.slot  # (paths,) the place among all requests' blocks, used slots only
    context = scatter(visible, block, blocks, 0).reshape(slots.batch, used, 1, visible.shape[1])
    context = context.expand(-1, -1, size, -1).reshape(slots.batch, queries, visible.shape[1])
    own = torch.cat([_own_block(slots, attention), torch.zeros(1, queries, padding, dtype=torch.bool)], dim=2)
    number = scatter(torch.arange(block.shape[0]), block, blocks, 0)
    nodes = torch.arange(size)
    tokens = (number.unsqueeze(1) * size + nodes).reshape(slots.batch, queries)
    own_positions = scatter(positions, block, blocks, 0).reshape(slots.batch, queries)
    nothing = torch.zeros(slots.batch, padding, dtype=torch.long)
    return VarlenPass(
        past=before.layers,
        bias=attention_bias(torch.cat([context, own.expand(slots.batch, -1, -1)], dim=2)),
        query_positions=own_positions,
        key_positions=torch.cat([before.key_positions, own_positions, nothing], dim=1),
        queries=tokens,
        keys=torch.cat([tokens, nothing], dim=1),
        pack=(block.unsqueeze(1) * size + nodes).flatten(),
    )


def _own_block(slots: BeamSlots, attention: Tensor) -> Tensor:
    """(1, queries, queries) which nodes of a row's blocks attend to which: those of one block, as `attention` says."""
    queries = slots.used.shape[0] * attention.shape[0]
    same_slot = slots.used.unsqueeze(1) == slots.used
    own = same_slot.unsqueeze(1).unsqueeze(3) & attention.unsqueeze(0).unsqueeze(2)
    return own.reshape(1, queries, queries)


def scatter(values: Tensor, index: Tensor, size: int, fill: float) -> Tensor:
    """Rows of `values` at their places in a table of `size` rows, `fill` elsewhere."""
    table = torch.full((size, *values.shape[1:]), fill, dtype=values.dtype)
    return table.index_put((index,), values)
