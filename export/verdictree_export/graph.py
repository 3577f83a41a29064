"""The graph that is exported: conversation tokens in, next-token logits at the nodes of the verdict tree out.

One call runs, for all requests of a batch at once,
  1. the trunk: conversation, suffix and head of the verdict tree, after the cached prefix; then
  2. for one, two, … labels: the tail of the tree after each path of labels that is still likely enough.
Nothing is decoded token by token: the nodes of a trie are evaluated side by side under tree attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verdictree.exploration import Exploration
from verdictree.release import Prompt
from verdictree.tree import Tokens, Trie, VerdictTree
from verdictree_export.attention import KeyValues, PackedPass, packed_attention

_IMPOSSIBLE = -1e9  # log-probability of a path that was not followed; finite, so that sums of it stay ordered


class Nodes(NamedTuple):
    """Evaluated nodes: label logits (rows, nodes, vocabulary), log-normalizer and top logit (rows, nodes)."""

    label_logits: Tensor
    log_normalizer: Tensor
    top_logit: Tensor


@dataclass
class Level:
    """The paths of one length that were evaluated, over all requests; level 0 holds the requests themselves.

    nodes     the trie after each path
    layers    keys and values of everything up to and including these nodes, layer by layer
    visible   (paths, keys before the trie's nodes) what a path's continuation attends to
    position  (paths,) position of the token that the trie hangs on
    log_prob  (paths,) log-probability of the path
    labels    (paths, length) its labels
    cell      (paths,) its place in the dense (batch * width) table of this length
    """

    nodes: Nodes
    layers: list[KeyValues]
    visible: Tensor
    position: Tensor
    log_prob: Tensor
    labels: Tensor
    cell: Tensor


class TriePaths(nn.Module):
    """The constants of a trie and of the label paths through it, as buffers."""

    tokens: Tensor
    depths: Tensor
    attention: Tensor
    path_matrix: Tensor
    ancestors: Tensor
    lengths: Tensor
    last_tokens: Tensor

    def __init__(self, trie: Trie, paths: Sequence[Tokens], vocabulary: Tokens) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(trie.tokens))
        self.register_buffer("depths", torch.tensor(trie.depths))
        self.register_buffer("attention", torch.from_numpy(trie.visibility()))
        self.register_buffer("path_matrix", torch.from_numpy(trie.path_matrix(paths, vocabulary)).float())
        self.register_buffer("ancestors", torch.from_numpy(trie.ancestors(paths)))
        self.register_buffer("lengths", torch.tensor([len(path) for path in paths]))
        self.register_buffer("last_tokens", torch.tensor([path[-1] for path in paths]))

    def label_log_probs(self, nodes: Nodes) -> Tensor:
        """log p(label | row), shape (rows, labels)."""
        log_probs = nodes.label_logits - nodes.log_normalizer.unsqueeze(-1)
        return torch.matmul(log_probs.flatten(1), self.path_matrix)


class PromptBank(nn.Module):
    """The constant prompts: each prefix as keys and values, each suffix followed by the head trie's tokens.

    Prefixes are padded on the right. Suffixes are padded on the left, so that the trie hangs on one column.
    """

    prefix_valid: Tensor
    prefix_length: Tensor
    tail_tokens: Tensor
    tail_valid: Tensor
    tail_offset: Tensor
    suffix_length: Tensor

    def __init__(self, model: Any, prompts: Sequence[Prompt], head: TriePaths) -> None:
        super().__init__()
        prefixes, suffixes = [p.prefix_ids for p in prompts], [p.suffix_ids for p in prompts]
        self.num_layers = int(model.config.num_hidden_layers)
        self.suffix_width = max(len(suffix) for suffix in suffixes)
        self.register_buffer("prefix_length", torch.tensor([len(prefix) for prefix in prefixes]))
        self.register_buffer("suffix_length", torch.tensor([len(suffix) for suffix in suffixes]))
        width = max(len(prefix) for prefix in prefixes)
        self.register_buffer("prefix_valid", torch.arange(width) < self.prefix_length[:, None])
        self._store_key_values(model, prefixes, width)
        pads = [self.suffix_width - len(suffix) for suffix in suffixes]
        nodes = head.tokens[1:].tolist()
        rows = [[0] * pad + list(suffix) + nodes for pad, suffix in zip(pads, suffixes, strict=True)]
        self.register_buffer("tail_tokens", torch.tensor(rows))
        columns = torch.cat([torch.arange(self.suffix_width), self.suffix_width - 1 + head.depths[1:]])
        offset = columns - torch.tensor(pads)[:, None]
        self.register_buffer("tail_valid", offset >= 0)
        self.register_buffer("tail_offset", offset.clamp(min=0))

    def _store_key_values(self, model: Any, prefixes: Sequence[Tokens], width: int) -> None:
        caches = []
        for prefix in prefixes:
            output = model.get_decoder()(torch.tensor([prefix]), use_cache=True)
            pad = (0, 0, 0, width - len(prefix))
            layers = output.past_key_values.layers
            caches.append([(nn.functional.pad(x.keys, pad), nn.functional.pad(x.values, pad)) for x in layers])
        for layer, pairs in enumerate(zip(*caches, strict=True)):
            self.register_buffer(f"keys_{layer}", torch.cat([keys for keys, _ in pairs]))
            self.register_buffer(f"values_{layer}", torch.cat([values for _, values in pairs]))

    def key_values(self, prefix_id: Tensor) -> list[KeyValues]:
        """The cached prefix of each request, layer by layer."""
        return [
            KeyValues(self.get_buffer(f"keys_{layer}"), self.get_buffer(f"values_{layer}")).take(prefix_id)
            for layer in range(self.num_layers)
        ]


class GuardGraph(nn.Module):
    """A guard LLM with its prompts and its verdict tree compiled in.

    Inputs: `input_ids` (tokens,) the conversations' ids, one after the other; `row_ends` (batch,) where each ends;
    `prefix_id` (batch, 1) the prompt of each. Outputs: what `verdictree.exploration.unpack` takes apart.
    """

    vocabulary: Tensor
    log_epsilon: Tensor

    def __init__(self, model: Any, prompts: Sequence[Prompt], tree: VerdictTree, exploration: Exploration) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.slots = exploration.slots(len(tree.labels))
        log_epsilon = math.log(exploration.epsilon) if exploration.epsilon > 0 else _IMPOSSIBLE / 2
        self.register_buffer("log_epsilon", torch.tensor(log_epsilon))
        self.head = TriePaths(tree.head, tree.first, tree.vocabulary)
        self.tail = TriePaths(tree.tail, tree.further, tree.vocabulary)
        self.bank = PromptBank(model, prompts, self.head)
        self.register_buffer("vocabulary", torch.tensor(tree.vocabulary))

    def forward(self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, num_labels = prefix_id.shape[0], self.head.lengths.shape[0]
        level = self._trunk(input_ids, row_ends.long(), prefix_id.long().reshape(-1))
        nodes, expansions = [level.nodes], []
        before, width_before = self.head, 1
        for length, width in enumerate(self.slots, start=1):
            chosen = self._select(level, before, batch, width_before, width)
            level = self._expand(level, before, chosen, with_tail=length < len(self.slots))
            cells = batch * width
            dense = Nodes(*(_scatter(part, level.cell, cells, 0.0) for part in level.nodes))
            nodes.append(Nodes(*(part.reshape(batch, -1, *part.shape[2:]) for part in dense)))
            labels = nn.functional.pad(level.labels, (0, len(self.slots) - length), value=num_labels)
            expansions.append(_scatter(labels, level.cell, cells, num_labels).reshape(batch, width, -1))
            before, width_before = self.tail, width
        logits, normalizers, tops = (_with_open_sizes(torch.cat(parts, dim=1)) for parts in zip(*nodes, strict=True))
        return logits, normalizers, tops, _with_open_sizes(torch.cat(expansions, dim=1)).int()

    def _trunk(self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> Level:
        """Conversation, suffix and head trie of every request, packed: all conversations, then all tails."""
        bank, batch, num_tokens = self.bank, prefix_id.shape[0], input_ids.shape[0]
        starts = torch.cat([torch.zeros_like(row_ends[:1]), row_ends[:-1]])
        lengths = row_ends - starts
        row = (torch.arange(num_tokens).unsqueeze(0) >= row_ends.unsqueeze(1)).long().sum(0)
        column = torch.arange(num_tokens) - starts.index_select(0, row)
        columns = torch.arange(lengths.max())  # type: ignore[call-overload]
        longest, tail_width = columns.shape[0], bank.tail_tokens.shape[1]
        tail_columns = torch.arange(tail_width)
        rows = torch.arange(batch).unsqueeze(1)

        in_conversation = columns < lengths.unsqueeze(1)
        unpack = torch.cat(
            [
                torch.where(in_conversation, starts.unsqueeze(1) + columns, 0),
                num_tokens + rows * tail_width + tail_columns,
            ],
            dim=1,
        )
        grid_width = longest + tail_width
        pack = torch.cat([row * grid_width + column, (rows * grid_width + longest + tail_columns).flatten()])
        valid = torch.cat(
            [
                bank.prefix_valid.index_select(0, prefix_id),
                in_conversation,
                bank.tail_valid.index_select(0, prefix_id),
            ],
            dim=1,
        )
        tokens = torch.cat([input_ids, bank.tail_tokens.index_select(0, prefix_id).flatten()])
        prefix_length = bank.prefix_length.index_select(0, prefix_id)
        ends = prefix_length + lengths
        tail_positions = ends.unsqueeze(1) + bank.tail_offset.index_select(0, prefix_id)
        positions = torch.cat([prefix_length.index_select(0, row) + column, tail_positions.flatten()])
        packed = PackedPass(
            past=bank.key_values(prefix_id),
            visible=valid.unsqueeze(1) & self._trunk_attention(columns).unsqueeze(0),
            unpack=unpack.flatten(),
            pack=pack,
        )
        hidden = self._run(tokens, positions, packed)[num_tokens:].reshape(batch, tail_width, -1)
        return Level(
            nodes=self._nodes(hidden[:, bank.suffix_width - 1 :]),
            layers=packed.layers,
            visible=valid[:, : valid.shape[1] - (tail_width - bank.suffix_width)],
            position=ends + bank.suffix_length.index_select(0, prefix_id) - 1,
            log_prob=torch.zeros(batch),
            labels=torch.zeros(batch, 0, dtype=torch.long),
            cell=torch.arange(batch),
        )

    def _trunk_attention(self, columns: Tensor) -> Tensor:
        """Which keys (prefix, conversation, tail) the queries (conversation, tail) of one request attend to."""
        prefix_width, suffix_width = self.bank.prefix_valid.shape[1], self.bank.suffix_width
        num_nodes = self.head.attention.shape[0] - 1
        causal = columns.unsqueeze(0) <= columns.unsqueeze(1)
        suffix = torch.ones(suffix_width, suffix_width, dtype=torch.bool).tril()
        tail = torch.cat(
            [
                torch.cat([suffix, torch.zeros(suffix_width, num_nodes, dtype=torch.bool)], dim=1),
                torch.cat([torch.ones(num_nodes, suffix_width, dtype=torch.bool), self.head.attention[1:, 1:]], dim=1),
            ]
        )
        conversation = torch.cat([causal, torch.zeros_like(causal[:, :1]).expand(-1, tail.shape[0])], dim=1)
        tail = torch.cat([torch.ones_like(tail[:, :1]).expand(-1, columns.shape[0]), tail], dim=1)
        own = torch.cat([conversation, tail])
        return torch.cat([torch.ones_like(own[:, :1]).expand(-1, prefix_width), own], dim=1)

    def _select(self, level: Level, trie: TriePaths, batch: int, width_before: int, width: int) -> _Chosen:
        """Of all one-label continuations of `level`, those likely enough, at most `width` a request."""
        num_labels = trie.lengths.shape[0]
        scores = level.log_prob.unsqueeze(1) + trie.label_log_probs(level.nodes)
        dense = _scatter(scores, level.cell, batch * width_before, _IMPOSSIBLE).reshape(batch, -1)
        log_prob, continuation = dense.topk(width, dim=1)
        cell = (log_prob >= self.log_epsilon).flatten().nonzero().squeeze(1)
        continuation = continuation.flatten().index_select(0, cell)
        slot_before = torch.div(continuation, num_labels, rounding_mode="floor")
        cell_before = torch.div(cell, width, rounding_mode="floor") * width_before + slot_before
        number = _scatter(torch.arange(level.cell.shape[0]), level.cell, batch * width_before, 0)
        return _Chosen(
            parent=number.index_select(0, cell_before),
            label=continuation - slot_before * num_labels,
            log_prob=log_prob.flatten().index_select(0, cell),
            cell=cell,
        )

    def _expand(self, level: Level, trie: TriePaths, chosen: _Chosen, with_tail: bool) -> Level:
        """Evaluate the tail trie, or its entry alone, after each chosen path; `trie` is the one that leads to it."""
        size = self.tail.tokens.shape[0] if with_tail else 1
        paths = chosen.label.shape[0]
        on_path = trie.ancestors.index_select(0, chosen.label)
        if trie is self.head:
            on_path = on_path[:, 1:]  # the head hangs on the suffix's last token, which is no node of its own
        before = torch.cat([level.visible.index_select(0, chosen.parent), on_path], dim=1)
        own = self.tail.attention[:size, :size].unsqueeze(0).expand(paths, -1, -1)
        position = level.position.index_select(0, chosen.parent) + trie.lengths.index_select(0, chosen.label)
        entry = trie.last_tokens.index_select(0, chosen.label).unsqueeze(1)
        tokens = torch.cat([entry, self.tail.tokens[1:size].unsqueeze(0).expand(paths, -1)], dim=1)
        packed = PackedPass(
            past=[layer.take(chosen.parent) for layer in level.layers],
            visible=torch.cat([before.unsqueeze(1).expand(-1, size, -1), own], dim=2),
            unpack=torch.arange(paths * size),
            pack=torch.arange(paths * size),
        )
        hidden = self._run(tokens.flatten(), (position.unsqueeze(1) + self.tail.depths[:size]).flatten(), packed)
        parent_labels = level.labels.index_select(0, chosen.parent)
        return Level(
            nodes=self._nodes(hidden.reshape(paths, size, int(hidden.shape[-1]))),
            layers=packed.layers,
            visible=before,
            position=position,
            log_prob=chosen.log_prob,
            labels=torch.cat([parent_labels, chosen.label.unsqueeze(1)], dim=1),
            cell=chosen.cell,
        )

    def _run(self, tokens: Tensor, positions: Tensor, packed: PackedPass) -> Tensor:
        with packed_attention(self.model):
            output = self.model.get_decoder()(
                input_ids=tokens.unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False, packed=packed
            )
        return output.last_hidden_state[0]  # type: ignore[no-any-return]

    def _nodes(self, hidden: Tensor) -> Nodes:
        logits = self.model.get_output_embeddings()(hidden).float()
        return Nodes(
            label_logits=logits.index_select(-1, self.vocabulary),
            log_normalizer=torch.logsumexp(logits, dim=-1),
            top_logit=logits.amax(dim=-1),
        )


def _with_open_sizes(output: Tensor) -> Tensor:
    """The same tensor, in a shape that a runtime cannot infer from the release's constants.

    Triton wants a model's configuration and its graph to agree on every dimension, and one configuration serves all
    releases: it leaves sizes open, so the graph must leave them open too.
    """
    nothing = output.shape[0] * 0
    return output.reshape(output.shape[0], *(size + nothing for size in output.shape[1:]))


class _Chosen(NamedTuple):
    parent: Tensor
    label: Tensor
    log_prob: Tensor
    cell: Tensor


def _scatter(values: Tensor, cell: Tensor, cells: int, fill: float) -> Tensor:
    """Rows of `values` at their cells of a table of `cells` rows, `fill` elsewhere."""
    table = torch.full((cells, *values.shape[1:]), fill, dtype=values.dtype)
    return table.index_put((cell,), values)
