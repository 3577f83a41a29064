"""The graph that is exported: conversation tokens in, next-token logits at the nodes of the verdict tree out.

One call runs, for all requests of a batch at once,
  1. the trunk: conversation, suffix and head of the verdict tree, after the cached prefix; then
  2. level by level: what comes next in the tree after each path that is still likely enough, one label longer each.
Nothing is decoded token by token: the nodes of a trie are evaluated side by side under tree attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from verdictree_export.graph.attention import PackedPass, packed_attention
from verdictree_export.graph.blocks import Slots, find_slots, scatter, visible_block
from verdictree_export.graph.blocks import lay_out as lay_out_blocks
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.last_layer import Reading, narrowed
from verdictree_export.graph.llama4 import real_rotary
from verdictree_export.graph.trie_paths import IMPOSSIBLE, Nodes, TriePaths
from verdictree_export.graph.trunk import lay_out as lay_out_trunk


@dataclass
class Level:
    """The paths of one length that were evaluated, over all requests; level 0 holds the requests themselves.

    nodes     the trie after each path, a word that opens a list and then labels
    packed    the pass that evaluated them, with the keys and values of everything up to and including them
    visible   (paths, keys) what a path's continuation attends to; of this trie's nodes none yet
    trie_start  the first key of this trie's nodes
    position  (paths,) position of the token that the trie hangs on
    log_prob  (paths,) log-probability of the path
    ending    (paths,) the ending of its last label, the number of its list without labels; 0 for a request
    indices   (paths, length) the path as `verdictree.verdict_tree.exploration.Path` counts it
    slots     the paths' places
    """

    nodes: Nodes
    packed: PackedPass
    visible: Tensor
    trie_start: int
    position: Tensor
    log_prob: Tensor
    ending: Tensor
    indices: Tensor
    slots: Slots


class Chosen(NamedTuple):
    """The paths that are to be expanded: parent's number, last index and log-probability, each (paths,), and place."""

    parent: Tensor
    last: Tensor
    log_prob: Tensor
    slots: Slots


@dataclass
class _Found:
    """What was evaluated so far: `nodes` of the head and of each level's slots, `paths` those slots' indices plus one,
    zero where a path has ended or none is, (batch, slots, levels)."""

    policies: CompiledPolicies
    nodes: list[Nodes]
    paths: list[Tensor]

    def outputs(self, batch: int) -> list[Tensor]:
        """What `exploration.unpack` takes apart, of questions, if no longer path is expanded."""
        widths, done = self.policies.widths, len(self.paths)
        nodes = [torch.cat(parts, dim=1) for parts in zip(*self.nodes, strict=True)]
        paths = list(self.paths)
        if done < len(widths):
            sizes = [trie.tokens.shape[0] for trie in self.policies.tries[:-1]] + [1]
            unused = sum(width * size for width, size in zip(widths[done:], sizes[done:], strict=True))
            nodes = [torch.cat([part, torch.zeros(batch, unused, *part.shape[2:])], dim=1) for part in nodes]
            paths.append(torch.zeros(batch, sum(widths[done:]), len(widths), dtype=torch.long))
        # Where no answer lists labels, one unused slot stands for all: a tensor without elements is no output.
        numbered = torch.cat(paths, dim=1) if paths else torch.zeros(batch, 1, 1, dtype=torch.long)
        return [*nodes, torch.where(numbered > 0, numbered - 1, self.policies.unused).int()]


class GuardGraph(nn.Module):
    """A guard LLM and the policies that it is asked about, compiled.

    Inputs: `input_ids` (tokens,) the conversations' ids, one after the other, each as often as it is asked about;
    `row_ends` (batch,) where each request's ids end; `prefix_id` (batch, questions) the prompts of each. Outputs: what
    `exploration.unpack` takes apart, a request's questions side by side; level by level whether any
    path is expanded, and the first outputs as they are where none is; then layer by layer the trunk's keys and values,
    (rows, key-value heads, tokens, head size), of which a prompt that is added later is made.
    """

    def __init__(self, model: Any, policies: CompiledPolicies) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.dtype = model.dtype
        self.policies = policies

    def forward(self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> tuple[Tensor, ...]:
        policies, requests = self.policies, prefix_id.shape[0]
        widths, batch = policies.widths, requests * prefix_id.shape[1]
        trunk = level = self._trunk(input_ids, _question_ends(row_ends.long(), prefix_id), prefix_id.long().reshape(-1))
        found, choices = _Found(policies, [level.nodes], []), list[Tensor]()
        before = policies.head
        for depth, (width, trie) in enumerate(zip(widths, policies.tries, strict=True)):
            chosen = self._select(level, before, width)
            choices += [torch.ones_like(chosen.last).sum() > 0, *found.outputs(batch)]
            level = self._expand(level, before, chosen, trie, entry_alone=depth + 1 == len(widths))
            cell, cells = level.slots.cell, batch * width
            dense = Nodes(*(scatter(part, cell, cells, 0.0) for part in level.nodes))
            found.nodes.append(Nodes(*(part.reshape(batch, -1, *part.shape[2:]) for part in dense)))
            indices = nn.functional.pad(level.indices + 1, (0, len(widths) - depth - 1))
            found.paths.append(scatter(indices, cell, cells, 0).reshape(batch, width, -1))
            before = trie
        outputs = [*found.outputs(batch), *choices]
        caches = [tensor for (layer,) in trunk.packed.layers for tensor in (layer.keys, layer.values)]
        return (*(_by_request(output, requests) if output.dim() else output for output in outputs), *caches)

    def _trunk(self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> Level:
        """Conversation, suffix and head trie of every request."""
        bank, batch = self.policies.bank, prefix_id.shape[0]
        trunk = lay_out_trunk(bank, self.policies.head, input_ids, row_ends, prefix_id)
        hidden = self._run(trunk.tokens, trunk.positions, trunk.packed, trunk.reading)
        return Level(
            nodes=self._nodes(hidden.reshape(batch, self.policies.head.tokens.shape[0], int(hidden.shape[-1]))),
            packed=trunk.packed,
            visible=trunk.visible,
            trie_start=trunk.trie_start,
            position=trunk.entry_position,
            log_prob=torch.zeros(batch),
            ending=torch.zeros(batch, dtype=torch.long),
            indices=torch.zeros(batch, 0, dtype=torch.long),
            slots=find_slots(torch.arange(batch), 1, batch),
        )

    def _select(self, level: Level, trie: TriePaths, width: int) -> Chosen:
        """Of all one-label continuations of `level`, those likely enough, at most `width` a request."""
        num_paths, before = trie.lengths.shape[0], level.slots
        scores = level.log_prob.unsqueeze(1) + trie.path_log_probs(level.nodes, level.ending)
        dense = scatter(scores, before.cell, before.batch * before.width, IMPOSSIBLE).reshape(before.batch, -1)
        log_prob, continuation = dense.topk(width, dim=1)
        cell = (log_prob >= self.policies.log_epsilon).flatten().nonzero().squeeze(1)
        continuation = continuation.flatten().index_select(0, cell)
        slot_before = torch.div(continuation, num_paths, rounding_mode="floor")
        cell_before = torch.div(cell, width, rounding_mode="floor") * before.width + slot_before
        return Chosen(
            parent=before.number().index_select(0, cell_before),
            last=continuation - slot_before * num_paths,
            log_prob=log_prob.flatten().index_select(0, cell),
            slots=find_slots(cell, width, before.batch),
        )

    def _expand(self, level: Level, before: TriePaths, chosen: Chosen, trie: TriePaths, entry_alone: bool) -> Level:
        """Evaluate `trie`, or its entry alone, after each chosen path, which led through `before`."""
        paths = chosen.last.shape[0]
        tokens, depths, attention = trie.tokens, trie.depths, trie.attention
        if entry_alone:
            tokens, depths, attention = tokens[:1], depths[:1], attention[:1, :1]
        size = depths.shape[0]
        on_path = before.ancestors.index_select(0, chosen.last)
        if before is self.policies.head:
            on_path = on_path[:, 1:]  # the head hangs on the suffix's last token, which is no node of its own
        shorter = visible_block(level.slots, chosen.parent, on_path)
        seen, start = level.visible.index_select(0, chosen.parent), level.trie_start
        visible = torch.cat([seen[:, :start], shorter, seen[:, start + shorter.shape[1] :]], dim=1)
        position = level.position.index_select(0, chosen.parent) + before.lengths.index_select(0, chosen.last)
        entry = before.last_tokens.index_select(0, chosen.last).unsqueeze(1)
        tokens = torch.cat([entry, tokens[1:].unsqueeze(0).expand(paths, -1)], dim=1)
        positions = position.unsqueeze(1) + depths
        packed = lay_out_blocks(level.packed, chosen.slots, visible, attention, positions)
        hidden = self._run(tokens.flatten(), positions.flatten(), packed)
        indices = level.indices.index_select(0, chosen.parent)
        return Level(
            nodes=self._nodes(hidden.reshape(paths, size, int(hidden.shape[-1]))),
            packed=packed,
            visible=torch.cat([visible, torch.zeros(paths, packed.keys.shape[1], dtype=torch.bool)], dim=1),
            trie_start=visible.shape[1],
            position=position,
            log_prob=chosen.log_prob,
            ending=before.ending.index_select(0, chosen.last),
            indices=torch.cat([indices, chosen.last.unsqueeze(1)], dim=1),
            slots=chosen.slots,
        )

    def _run(self, tokens: Tensor, positions: Tensor, packed: PackedPass, reading: Reading | None = None) -> Tensor:
        """The last hidden states (tokens, size), of all tokens or of those to be read."""
        with packed_attention(self.model), real_rotary(), narrowed(self.model, reading):
            output = self.model.get_decoder()(
                input_ids=tokens.unsqueeze(0),
                position_ids=positions.unsqueeze(0),
                cache_position=positions,
                use_cache=False,
                packed=packed,
            )
        return output.last_hidden_state[0]  # type: ignore[no-any-return]

    def _logits(self, hidden: Tensor) -> Tensor:
        """The head, with what some architectures do to its output; parity refuses a model that does anything else."""
        logits = self.model.get_output_embeddings()(hidden)
        softcap = getattr(self.config, "final_logit_softcapping", None)  # Gemma 2 and 3
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        return logits / getattr(self.config, "logits_scaling", 1.0)  # type: ignore[no-any-return]  # Granite

    def _nodes(self, hidden: Tensor) -> Nodes:
        """The verdict head: logits of the label vocabulary and what normalizes them, for hidden (rows, nodes, size)."""
        rows, nodes, size = hidden.shape
        packed = hidden.reshape(1, rows * nodes, int(size))
        logits = self._logits(packed).float().reshape(rows, nodes, self.config.vocab_size)
        top_logit = logits.amax(dim=-1)
        # The same as logsumexp, which ONNX Runtime computes eight times as slowly, with forty times the error.
        log_normalizer = top_logit - torch.log_softmax(logits, dim=-1).amax(dim=-1)
        return Nodes(logits.index_select(-1, self.policies.vocabulary), log_normalizer, top_logit)


def _question_ends(row_ends: Tensor, prefix_id: Tensor) -> Tensor:
    """Where the ids of each question end: a request's row repeats its conversation for each of its questions."""
    questions = prefix_id.shape[1]
    starts = torch.cat([torch.zeros_like(row_ends[:1]), row_ends[:-1]])
    lengths = torch.div(row_ends - starts, questions, rounding_mode="floor")
    return (starts.unsqueeze(1) + lengths.unsqueeze(1) * torch.arange(1, questions + 1)).reshape(-1)


def _by_request(output: Tensor, requests: int) -> Tensor:
    """The tensor with the rows of a request's questions side by side, in a shape that a runtime cannot infer.

    Triton wants a model's configuration and its graph to agree on every dimension, and one configuration serves all
    releases: it leaves sizes open, so the graph must leave them open too.
    """
    nothing = output.shape[0] * 0
    return output.reshape(requests, -1, *(size + nothing for size in output.shape[2:]))
