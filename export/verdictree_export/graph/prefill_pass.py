"""The prefill pass: conversation, suffix and root trie of every request, after its cached prefix.

The same tokens stand in three orders.

- **Packed**, for all layers but attention: all conversations, one after the other without padding, then the suffix and
  root trie of each request, which have one width.
- As **queries**, a row for each request: suffix and root trie, then the conversation, padded on the right.
- As **keys**, a row for each request: the cached prefix, suffix and root trie, then the conversation, padded to a
  multiple of `attention.ALIGNMENT`. So what a request's tokens stand beside does not depend on its neighbours' lengths.

For example, two requests, `Hi there` and `No`, with the prompts `Judge this.⏎ | conversation | ⏎>` and
`Check: | conversation | >`, and the root trie that is drawn in `verdict_tree.tree` (⏎ is a line break, ␣ a space, · is
padding):

    packed   Hi ␣there │ No │ ⏎ > unsafe ⏎ S 1 │ · > unsafe ⏎ S 1

    queries  0 ⏎ > unsafe ⏎ S 1  Hi ␣there
    position   5 6 7      8 9 10 3  4

    queries  1 · > unsafe ⏎ S 1 No ·
    position     3 4      5 6 7 2

    keys 0   Judge ␣this .⏎ ⏎ > unsafe ⏎ S 1 Hi ␣there and 53 more of padding
    keys 1   Check : · · > unsafe ⏎ S 1 No and 54 more of padding

    logits wanted at  > unsafe ⏎ S 1 │ > unsafe ⏎ S 1

    attends to Judge ␣this .⏎ ⏎ > unsafe ⏎ S 1 Hi ␣there
    ⏎          x     x     x  x · ·      · · · x  x
    >          x     x     x  x x ·      · · · x  x
    unsafe     x     x     x  x x x      · · · x  x
    ⏎          x     x     x  x x x      x · · x  x
    S          x     x     x  x x x      x x · x  x
    1          x     x     x  x x x      x x x x  x
    Hi         x     x     x  · · ·      · · · x  ·
    ␣there     x     x     x  · · ·      · · · x  x

A position is a token's place in the whole prompt: the suffix follows the conversation, though it stands before it here.
The trie's nodes count on from there, by their depth. Row 0 is drawn at the end: the conversation is causal, the suffix
sees it all, and a node of the trie sees its ancestors only. The trie's entry is the suffix's last token, `>`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verdictree_export.graph.attention import VarlenPass, aligned, attention_bias
from verdictree_export.graph.last_layer import LogitsPositions
from verdictree_export.graph.prefix_cache import PrefixCache
from verdictree_export.graph.trie_paths import TriePaths


@dataclass(frozen=True)
class PrefillPass:
    """The first pass over the model, ready to run.

    tokens, positions  (packed,)
    varlen             the pass
    logits_positions   the suffix's last token and the root trie, request by request
    visible            (batch, keys) which of its keys the paths of each request attend to; of the root trie's none yet
    trie_start         the first key of the root trie
    entry_position     (batch,) position of the suffix's last token, which the root trie hangs on
    """

    tokens: Tensor
    positions: Tensor
    varlen: VarlenPass
    logits_positions: LogitsPositions
    visible: Tensor
    trie_start: int
    entry_position: Tensor


def lay_out_prefill(
    cache: PrefixCache, root: TriePaths, input_ids: Tensor, cu_seqlens: Tensor, prefix_id: Tensor
) -> PrefillPass:
    """The prefill pass of a batch: `input_ids` (tokens,), `cu_seqlens` (batch + 1,) and `prefix_id` (batch,)."""
    layout = _Layout(cache, root, cu_seqlens, prefix_id)
    after, suffix_width = layout.after, layout.suffix_width
    row, column = layout.places(input_ids.shape[0])
    packed_after = layout.packed_after(input_ids.shape[0])
    valid = torch.cat([layout.prefix_valid, after.valid, layout.in_conversation], dim=1)
    in_trie = torch.zeros_like(after.valid[:, suffix_width:])
    varlen = VarlenPass(
        past=cache.key_values(prefix_id),
        bias=attention_bias(valid.unsqueeze(1) & layout.attention().unsqueeze(0)),
        query_positions=torch.cat([layout.after_positions, layout.conversation_positions(layout.columns)], dim=1),
        key_positions=torch.cat(
            [layout.prefix_positions, layout.after_positions, layout.conversation_positions(layout.key_columns)], dim=1
        ),
        queries=torch.cat([packed_after, layout.packed_conversation(layout.columns)], dim=1),
        keys=torch.cat([packed_after, layout.packed_conversation(layout.key_columns)], dim=1),
        pack=layout.cells(row, column),
        joined=True,
    )
    nodes = slice(suffix_width - 1, layout.after_width)
    return PrefillPass(
        tokens=torch.cat([input_ids, after.tokens.flatten()]),
        positions=torch.cat([layout.prefix_length.index_select(0, row) + column, layout.after_positions.flatten()]),
        varlen=varlen,
        logits_positions=LogitsPositions(packed_after[:, nodes].flatten(), varlen.narrowed(nodes)),
        visible=torch.cat([layout.prefix_valid, after.valid[:, :suffix_width], in_trie, layout.in_conversation], dim=1),
        trie_start=layout.prefix_width + suffix_width,
        entry_position=layout.ends + cache.suffix_length.index_select(0, prefix_id) - 1,
    )


class _Layout:
    """Where the tokens of one batch stand. `after` is what comes after a conversation: suffix and root trie.

    starts, lengths, ends  (batch,) of the conversations: among the packed tokens; number of tokens; position after
    columns, key_columns   of the conversations in the grids of queries and of keys, the latter with padding
    """

    def __init__(self, cache: PrefixCache, root: TriePaths, cu_seqlens: Tensor, prefix_id: Tensor) -> None:
        self.root, self.batch = root, prefix_id.shape[0]
        self.prefix_width, self.after_width = cache.prefix_valid.shape[1], cache.suffix_and_root_width
        self.suffix_width = self.after_width - (root.tokens.shape[0] - 1)
        self.starts, self.cu_seqlens = cu_seqlens[:-1], cu_seqlens
        self.lengths = cu_seqlens[1:] - self.starts
        self.rows = torch.arange(self.batch).unsqueeze(1)
        self.columns = torch.arange(self.lengths.max())  # type: ignore[call-overload]
        # By the shape: under CUDA a second size that is computed on the device would be waited for as well.
        longest, before = self.columns.shape[0], self.prefix_width + self.after_width
        self.key_columns = torch.arange(aligned(longest + before) - before)
        self.prefix_length = cache.prefix_length.index_select(0, prefix_id)
        self.prefix_valid = cache.prefix_valid.index_select(0, prefix_id)
        self.prefix_positions = torch.arange(self.prefix_width).unsqueeze(0).expand(self.batch, -1)
        self.after = cache.suffix_and_root(prefix_id)
        self.ends = self.prefix_length + self.lengths
        self.after_positions = self.ends.unsqueeze(1) + self.after.offset
        self.in_conversation = self.key_columns < self.lengths.unsqueeze(1)

    def places(self, num_tokens: int) -> tuple[Tensor, Tensor]:
        """(tokens,) the row of each packed token of a conversation, and its column in the conversation."""
        row = (torch.arange(num_tokens).unsqueeze(0) >= self.cu_seqlens[1:].unsqueeze(1)).long().sum(0)
        return row, torch.arange(num_tokens) - self.starts.index_select(0, row)

    def packed_conversation(self, columns: Tensor) -> Tensor:
        """(batch, columns) which packed token stands in these columns of each row's conversation; 0 in padding."""
        return torch.where(columns < self.lengths.unsqueeze(1), self.starts.unsqueeze(1) + columns, 0)

    def packed_after(self, num_tokens: int) -> Tensor:
        """(batch, after) which packed token is each one of a row's suffix and root trie."""
        return num_tokens + self.rows * self.after_width + torch.arange(self.after_width)

    def cells(self, row: Tensor, column: Tensor) -> Tensor:
        """(packed,) the cell of the grid of queries in which each packed token stands."""
        width = self.after_width + self.columns.shape[0]
        after = self.rows * width + torch.arange(self.after_width)
        return torch.cat([row * width + self.after_width + column, after.flatten()])

    def conversation_positions(self, columns: Tensor) -> Tensor:
        """(batch, columns)"""
        return self.prefix_length.unsqueeze(1) + columns

    def attention(self) -> Tensor:
        """Which keys (prefix, suffix, trie, conversation) the queries (suffix, trie, conversation) of a row attend to.

        Padding apart, it is the same for every row:

                          prefix   suffix   trie         conversation
            suffix          all    causal   none         all
            trie            all    all      ancestors    all
            conversation    all    none     none         causal
        """
        num_nodes, width = self.root.attention.shape[0] - 1, self.suffix_width
        suffix = torch.ones(width, width, dtype=torch.bool).tril()
        suffix_row = torch.cat([suffix, torch.zeros(width, num_nodes, dtype=torch.bool)], dim=1)
        trie_row = torch.cat([torch.ones(num_nodes, width, dtype=torch.bool), self.root.attention[1:, 1:]], dim=1)
        after = torch.cat([suffix_row, trie_row])
        after = torch.cat([after, torch.ones_like(after[:, :1]).expand(-1, self.key_columns.shape[0])], dim=1)
        causal = self.key_columns.unsqueeze(0) <= self.columns.unsqueeze(1)
        conversation = torch.cat([torch.zeros_like(causal[:, :1]).expand(-1, width + num_nodes), causal], dim=1)
        own = torch.cat([after, conversation])
        return torch.cat([torch.ones_like(own[:, :1]).expand(-1, self.prefix_width), own], dim=1)
