"""The layout of expanded paths: where their blocks stand, packed and in their requests' rows.

A block is the tail trie after one path of labels. Packed are the blocks of all paths. A request's row holds its own,
slot by slot, as many slots as the request with the most paths has, so that the keys and values of what the blocks
attend to (prefix, conversation, suffix, shorter paths) stay where they are: nothing is copied for a path.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from verdictree_export.graph.attention import PackedPass, aligned, attention_bias


class Slots(NamedTuple):
    """Where the paths of one length stand in a table of (batch, width) slots: most probable first, no gaps.

    cell   (paths,) index into the flattened (batch, width) table
    width  slots a request can use
    used   (used,) numbers of the slots that the request with the most paths uses
    batch  requests
    """

    cell: Tensor
    width: int
    used: Tensor
    batch: int

    @property
    def slot(self) -> Tensor:
        """(paths,) the slot within the request."""
        return self.cell - self.row * self.width

    @property
    def row(self) -> Tensor:
        """(paths,) the request."""
        return torch.div(self.cell, self.width, rounding_mode="floor")

    def number(self) -> Tensor:
        """(batch * width,) the path in each slot; 0 in empty ones."""
        return scatter(torch.arange(self.cell.shape[0]), self.cell, self.batch * self.width, 0)


def find_slots(cell: Tensor, width: int, batch: int) -> Slots:
    """The slots of paths at these cells of the (batch, width) table."""
    slot = cell - torch.div(cell, width, rounding_mode="floor") * width
    num_used = torch.cat([torch.full((1,), -1), slot]).max() + 1  # zero where no path is live
    return Slots(cell, width, torch.arange(num_used), batch)  # type: ignore[call-overload]


def visible_block(parents: Slots, parent: Tensor, on_path: Tensor) -> Tensor:
    """Which keys of the blocks one label shorter each path attends to, (paths, used * nodes).

    `parent` (paths,) is the number of the path that each path goes on from, `on_path` (paths, nodes) the nodes of that
    path's block that it passes through.
    """
    slot = parents.slot.index_select(0, parent)
    own = parents.used == slot.unsqueeze(1)
    keys = parents.used.shape[0] * on_path.shape[1]
    return (own.unsqueeze(2) & on_path.unsqueeze(1)).reshape(parent.shape[0], keys)


def lay_out(before: PackedPass, slots: Slots, visible: Tensor, attention: Tensor, positions: Tensor) -> PackedPass:
    """The pass over the blocks of all paths, which follows the pass `before`.

    `visible` (paths, keys of the past) is what each path attends to, `attention` (nodes, nodes) how the nodes of a
    block attend to one another, `positions` (paths, nodes) where they stand.
    """
    size, used = attention.shape[0], slots.used.shape[0]
    cells, queries = slots.batch * used, used * size
    padding = aligned(queries) - queries
    cell = slots.row * used + slots.slot
    context = scatter(visible, cell, cells, 0).reshape(slots.batch, used, 1, visible.shape[1])
    context = context.expand(-1, -1, size, -1).reshape(slots.batch, queries, visible.shape[1])
    same_slot = slots.used.unsqueeze(1) == slots.used
    own = same_slot.unsqueeze(1).unsqueeze(3) & attention.unsqueeze(0).unsqueeze(2)
    own = own.reshape(1, queries, queries)
    own = torch.cat([own, torch.zeros(1, queries, padding, dtype=torch.bool)], dim=2)
    number = scatter(torch.arange(cell.shape[0]), cell, cells, 0)
    nodes = torch.arange(size)
    tokens = (number.unsqueeze(1) * size + nodes).reshape(slots.batch, queries)
    own_positions = scatter(positions, cell, cells, 0).reshape(slots.batch, queries)
    nothing = torch.zeros(slots.batch, padding, dtype=torch.long)
    return PackedPass(
        past=before.layers,
        bias=attention_bias(torch.cat([context, own.expand(slots.batch, -1, -1)], dim=2)),
        query_positions=own_positions,
        key_positions=torch.cat([before.key_positions, own_positions, nothing], dim=1),
        queries=tokens,
        keys=torch.cat([tokens, nothing], dim=1),
        pack=(cell.unsqueeze(1) * size + nodes).flatten(),
    )


def scatter(values: Tensor, cell: Tensor, cells: int, fill: float) -> Tensor:
    """Rows of `values` at their cells of a table of `cells` rows, `fill` elsewhere."""
    table = torch.full((cells, *values.shape[1:]), fill, dtype=values.dtype)
    return table.index_put((cell,), values)
