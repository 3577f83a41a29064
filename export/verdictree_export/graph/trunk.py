"""The trunk's layout: where conversation, suffix and head trie of each request stand, packed and in its own row.

Packed are first all conversations, one after the other without padding, then all tails: suffix and head trie, of one
width for every request. A request's row holds its tail, then its conversation, padded: what a request's tokens stand
beside does not depend on its neighbours' lengths (see `attention.ALIGNMENT`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verdictree_export.graph.attention import PackedPass, aligned, attention_bias
from verdictree_export.graph.last_layer import Reading
from verdictree_export.graph.prompt_bank import PromptBank
from verdictree_export.graph.trie_paths import TriePaths


@dataclass(frozen=True)
class Trunk:
    """The first pass over the model, ready to run.

    tokens, positions  (packed,)
    packed             the pass
    reading            the suffix's last token and the head trie, request by request
    visible            (batch, keys) which of its keys the paths of each request attend to; of the head trie's none yet
    trie_start         the first key of the head trie
    entry_position     (batch,) position of the suffix's last token, which the head trie hangs on
    """

    tokens: Tensor
    positions: Tensor
    packed: PackedPass
    reading: Reading
    visible: Tensor
    trie_start: int
    entry_position: Tensor


def lay_out(bank: PromptBank, head: TriePaths, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> Trunk:
    """The trunk of a batch: `input_ids` (tokens,), `row_ends` and `prefix_id` (batch,)."""
    num_tokens, batch = input_ids.shape[0], prefix_id.shape[0]
    prefix_width, tail_width = bank.prefix_valid.shape[1], bank.tail_tokens.shape[1]
    suffix_width = tail_width - (head.tokens.shape[0] - 1)
    starts = torch.cat([torch.zeros_like(row_ends[:1]), row_ends[:-1]])
    lengths = row_ends - starts
    longest = lengths.max()
    columns = torch.arange(longest)  # type: ignore[call-overload]
    before = prefix_width + tail_width
    key_columns = torch.arange(aligned(longest + before) - before)
    rows = torch.arange(batch).unsqueeze(1)
    tail_cells = num_tokens + rows * tail_width + torch.arange(tail_width)

    def unpack(columns: Tensor) -> Tensor:
        conversation = torch.where(columns < lengths.unsqueeze(1), starts.unsqueeze(1) + columns, 0)
        return torch.cat([tail_cells, conversation], dim=1)

    row = (torch.arange(num_tokens).unsqueeze(0) >= row_ends.unsqueeze(1)).long().sum(0)
    column = torch.arange(num_tokens) - starts.index_select(0, row)
    width = tail_width + columns.shape[0]
    pack = torch.cat([row * width + tail_width + column, (rows * width + torch.arange(tail_width)).flatten()])

    prefix_length = bank.prefix_length.index_select(0, prefix_id)
    ends = prefix_length + lengths
    tail_positions = ends.unsqueeze(1) + bank.tail_offset.index_select(0, prefix_id)
    prefix_positions = torch.arange(prefix_width).unsqueeze(0).expand(batch, -1)
    prefix_valid, tail_valid = (x.index_select(0, prefix_id) for x in (bank.prefix_valid, bank.tail_valid))
    in_conversation = key_columns < lengths.unsqueeze(1)
    valid = torch.cat([prefix_valid, tail_valid, in_conversation], dim=1)
    in_trie = torch.zeros_like(tail_valid[:, suffix_width:])
    packed = PackedPass(
        past=bank.key_values(prefix_id),
        bias=attention_bias(valid.unsqueeze(1) & _attention(bank, head, columns, key_columns).unsqueeze(0)),
        query_positions=torch.cat([tail_positions, prefix_length.unsqueeze(1) + columns], dim=1),
        key_positions=torch.cat([prefix_positions, tail_positions, prefix_length.unsqueeze(1) + key_columns], dim=1),
        queries=unpack(columns),
        keys=unpack(key_columns),
        pack=pack,
        joined=True,
    )
    nodes = slice(suffix_width - 1, tail_width)
    return Trunk(
        tokens=torch.cat([input_ids, bank.tail_tokens.index_select(0, prefix_id).flatten()]),
        positions=torch.cat([prefix_length.index_select(0, row) + column, tail_positions.flatten()]),
        packed=packed,
        reading=Reading(tail_cells[:, nodes].flatten(), packed.narrowed(nodes)),
        visible=torch.cat([prefix_valid, tail_valid[:, :suffix_width], in_trie, in_conversation], dim=1),
        trie_start=prefix_width + suffix_width,
        entry_position=ends + bank.suffix_length.index_select(0, prefix_id) - 1,
    )


def _attention(bank: PromptBank, head: TriePaths, columns: Tensor, key_columns: Tensor) -> Tensor:
    """Which keys (prefix, suffix, trie, conversation) the queries (suffix, trie, conversation) of a row attend to."""
    num_nodes = head.attention.shape[0] - 1
    suffix_width = bank.tail_tokens.shape[1] - num_nodes
    suffix = torch.ones(suffix_width, suffix_width, dtype=torch.bool).tril()
    suffix_row = torch.cat([suffix, torch.zeros(suffix_width, num_nodes, dtype=torch.bool)], dim=1)
    trie_row = torch.cat([torch.ones(num_nodes, suffix_width, dtype=torch.bool), head.attention[1:, 1:]], dim=1)
    tail = torch.cat([suffix_row, trie_row])
    tail = torch.cat([tail, torch.ones_like(tail[:, :1]).expand(-1, key_columns.shape[0])], dim=1)
    causal = key_columns.unsqueeze(0) <= columns.unsqueeze(1)
    conversation = torch.cat([torch.zeros_like(causal[:, :1]).expand(-1, suffix_width + num_nodes), causal], dim=1)
    own = torch.cat([tail, conversation])
    return torch.cat([torch.ones_like(own[:, :1]).expand(-1, bank.prefix_valid.shape[1]), own], dim=1)
