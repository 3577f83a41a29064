"""The trunk's layout: where conversation, suffix and head trie of each request stand, packed and in its own row.

Packed are first all conversations, one after the other without padding, then all tails: suffix and head trie, of one
width for every request. A request's row holds its conversation, padded to the longest of the batch, then its tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verdictree_export.attention import PackedPass, attention_bias
from verdictree_export.prompt_bank import PromptBank
from verdictree_export.trie_paths import TriePaths


@dataclass(frozen=True)
class Trunk:
    """The first pass over the model, ready to run.

    tokens, positions  (packed,)
    packed             the pass
    before_trie        (batch, keys before the head trie's nodes) which of them exist for each request
    entry_position     (batch,) position of the suffix's last token, which the head trie hangs on
    """

    tokens: Tensor
    positions: Tensor
    packed: PackedPass
    before_trie: Tensor
    entry_position: Tensor


def lay_out(bank: PromptBank, head: TriePaths, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> Trunk:
    """The trunk of a batch: `input_ids` (tokens,), `row_ends` and `prefix_id` (batch,)."""
    num_tokens, batch, tail_width = input_ids.shape[0], prefix_id.shape[0], bank.tail_tokens.shape[1]
    num_nodes = head.tokens.shape[0] - 1
    starts = torch.cat([torch.zeros_like(row_ends[:1]), row_ends[:-1]])
    lengths = row_ends - starts
    columns = torch.arange(lengths.max())  # type: ignore[call-overload]
    tail_columns = torch.arange(tail_width)
    rows = torch.arange(batch).unsqueeze(1)
    in_conversation = columns < lengths.unsqueeze(1)

    row = (torch.arange(num_tokens).unsqueeze(0) >= row_ends.unsqueeze(1)).long().sum(0)
    column = torch.arange(num_tokens) - starts.index_select(0, row)
    width = columns.shape[0] + tail_width
    conversation_cells = torch.where(in_conversation, starts.unsqueeze(1) + columns, 0)
    tail_cells = num_tokens + rows * tail_width + tail_columns
    pack = torch.cat([row * width + column, (rows * width + columns.shape[0] + tail_columns).flatten()])

    prefix_length = bank.prefix_length.index_select(0, prefix_id)
    ends = prefix_length + lengths
    tail_positions = ends.unsqueeze(1) + bank.tail_offset.index_select(0, prefix_id)
    prefix_positions = torch.arange(bank.prefix_valid.shape[1]).unsqueeze(0).expand(batch, -1)
    conversation_positions = prefix_length.unsqueeze(1) + columns
    prefix_valid, tail_valid = (x.index_select(0, prefix_id) for x in (bank.prefix_valid, bank.tail_valid))
    valid = torch.cat([prefix_valid, in_conversation, tail_valid], dim=1)
    return Trunk(
        tokens=torch.cat([input_ids, bank.tail_tokens.index_select(0, prefix_id).flatten()]),
        positions=torch.cat([prefix_length.index_select(0, row) + column, tail_positions.flatten()]),
        packed=PackedPass(
            past=bank.key_values(prefix_id),
            bias=attention_bias(valid.unsqueeze(1) & _attention(bank, head, columns).unsqueeze(0)),
            positions=torch.cat([prefix_positions, conversation_positions, tail_positions], dim=1),
            unpack=torch.cat([conversation_cells, tail_cells], dim=1).flatten(),
            pack=pack,
            joined=True,
        ),
        before_trie=valid[:, : valid.shape[1] - num_nodes],
        entry_position=ends + bank.suffix_length.index_select(0, prefix_id) - 1,
    )


def _attention(bank: PromptBank, head: TriePaths, columns: Tensor) -> Tensor:
    """Which keys (prefix, conversation, suffix, trie) the queries (conversation, suffix, trie) of a row attend to."""
    num_nodes = head.attention.shape[0] - 1
    causal = columns.unsqueeze(0) <= columns.unsqueeze(1)
    suffix_width = bank.tail_tokens.shape[1] - num_nodes
    suffix = torch.ones(suffix_width, suffix_width, dtype=torch.bool).tril()
    suffix_row = torch.cat([suffix, torch.zeros(suffix_width, num_nodes, dtype=torch.bool)], dim=1)
    trie_row = torch.cat([torch.ones(num_nodes, suffix_width, dtype=torch.bool), head.attention[1:, 1:]], dim=1)
    tail = torch.cat([suffix_row, trie_row])
    conversation = torch.cat([causal, torch.zeros_like(causal[:, :1]).expand(-1, tail.shape[0])], dim=1)
    tail = torch.cat([torch.ones_like(tail[:, :1]).expand(-1, columns.shape[0]), tail], dim=1)
    own = torch.cat([conversation, tail])
    return torch.cat([torch.ones_like(own[:, :1]).expand(-1, bank.prefix_valid.shape[1]), own], dim=1)
