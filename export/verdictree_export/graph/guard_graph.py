"""The graph that is exported: conversation tokens in, next-token logits at the nodes of the verdict tree out.

One call runs, for all requests of a batch at once,
  1. the prefill pass: conversation, suffix and root trie of the verdict tree, after the cached prefix; then
  2. depth by depth: what comes next in the tree after each path that is still likely enough, one label longer each.
Nothing is decoded token by token: the nodes of a trie are evaluated side by side under tree attention.

The tries are drawn in `verdict_tree.tree`, the prefill pass in `prefill_pass`, the passes after it in `blocks`, what a
path attends to in `frontier`, and how requests leave the prefill pass in `early_exit`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from verdictree.verdict_tree.questions import by_request, ends_by_question
from verdictree_export.graph.attention import VarlenPass, varlen_attention
from verdictree_export.graph.blocks import BeamSlots, lay_out_blocks
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.early_exit import EarlyExit, leaving
from verdictree_export.graph.frontier import Evaluated, Frontier, Selected
from verdictree_export.graph.last_layer import LogitsPositions, narrowed
from verdictree_export.graph.llama4 import real_rotary
from verdictree_export.graph.prefill_pass import lay_out_prefill
from verdictree_export.graph.trie_paths import IMPOSSIBLE, Nodes, TriePaths
from verdictree_export.graph.verdict_head import verdict_head


class GuardGraph(nn.Module):
    """A guard LLM and the policies that it is asked about, compiled.

    Inputs: `input_ids` (tokens,) the conversations' ids, one after the other, each as often as it is asked about;
    `row_ends` (batch,) where each request's ids end (cu_seqlens without its first, 0); `prefix_id` (batch, questions)
    the prompts of each. Outputs: what `exploration.unpack` takes apart, a request's questions side by side; with an
    exit whether any request stays, and the first outputs as they are where none does; depth by depth whether any path
    is expanded, and the first outputs as they are where none is; then layer by layer the prefill pass's keys and
    values, (rows, key-value heads, tokens, head size), of which a prompt that is added later is made; with an exit the
    hidden states there, (1, packed, size), and what its probe reads of them, (rows, features).
    """

    def __init__(self, model: Any, policies: CompiledPolicies, exit_layer: int | None = None) -> None:
        """`exit_layer` is after how many layers requests can leave, by the probe of `policies`; None: never."""
        super().__init__()
        self.model = model
        self.config = model.config
        self.policies = policies
        self.exit_layer = exit_layer

    def forward(self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> tuple[Tensor, ...]:
        policies, (requests, questions) = self.policies, (prefix_id.shape[0], prefix_id.shape[1])
        cu_seqlens = _question_cu_seqlens(row_ends.long(), questions)
        frontier, early_exit = self._prefill(input_ids, cu_seqlens, prefix_id.long().reshape(-1))
        staying = None if early_exit is None else early_exit.staying
        evaluated, choices = Evaluated(policies, [frontier.nodes], []), list[Tensor]()

        def outputs(evaluated: Evaluated, rows: int) -> list[Tensor]:
            return evaluated.outputs(rows) if staying is None else staying.placed(evaluated.outputs(rows))

        prefill, before, rows = frontier.varlen, policies.root_trie, frontier.slots.batch
        if staying is not None:
            everyone = requests * questions
            blank = Nodes.blank(everyone, before.tokens.shape[0], policies.vocabulary.shape[0])
            left = staying.all_left(Evaluated(policies, [blank], []).outputs(everyone))
            choices += [any_of(staying.rows), *left]
        for depth, (beam_width, trie) in enumerate(zip(policies.beam_widths, policies.tries, strict=True)):
            selected = self._select(frontier, before, beam_width)
            choices += [any_of(selected.last), *outputs(evaluated, rows)]
            frontier = self._expand(frontier, before, selected, trie, entry_alone=depth + 1 == len(policies.tries))
            evaluated.add(frontier)
            before = trie
        whole = [*outputs(evaluated, rows), *choices]
        layers, others = prefill.layers, list[Tensor]()
        if early_exit is not None:  # before the exit, those of all requests
            layers = [*early_exit.layers_before, *layers[self.exit_layer :]]
            others = [early_exit.states, early_exit.features]
        caches = [tensor for (layer,) in layers for tensor in (layer.keys, layer.values)]
        return (*(by_request(output, requests) if output.dim() else output for output in whole), *caches, *others)

    def without_paths(self, input_ids: Tensor, row_ends: Tensor, prefix_id: Tensor) -> list[Tensor]:
        """The first outputs of `forward`, of the prefill pass alone: as if no path were likely enough."""
        questions = prefix_id.shape[1]
        cu_seqlens = _question_cu_seqlens(row_ends.long(), questions)
        frontier, _ = self._prefill(input_ids, cu_seqlens, prefix_id.long().reshape(-1))
        outputs = Evaluated(self.policies, [frontier.nodes], []).outputs(frontier.slots.batch)
        return [by_request(output, prefix_id.shape[0]) for output in outputs]

    def _prefill(self, input_ids: Tensor, cu_seqlens: Tensor, prefix_id: Tensor) -> tuple[Frontier, EarlyExit | None]:
        """Conversation, suffix and root trie of every request, or of those that stay."""
        policies, root = self.policies, self.policies.root_trie
        prompt = policies.prompt(prefix_id)
        prefill, early_exit = lay_out_prefill(policies.prefix_cache, root, input_ids, cu_seqlens, prompt), None
        if self.exit_layer is not None:
            early_exit = EarlyExit(self.exit_layer, policies, prefill, cu_seqlens, prefix_id)
        hidden = self._run(prefill.tokens, prefill.positions, prefill.varlen, prefill.logits_positions, early_exit)
        if early_exit is not None:
            prefill = early_exit.prefill
        batch = prefill.entry_position.shape[0]
        frontier = Frontier(
            nodes=self._nodes(hidden, batch, root.tokens.shape[0]),
            varlen=prefill.varlen,
            visible=prefill.visible,
            trie_start=prefill.trie_start,
            position=prefill.entry_position,
            log_prob=torch.zeros(batch),
            continuation_class=torch.zeros(batch, dtype=torch.long),
            indices=torch.zeros(batch, 0, dtype=torch.long),
            slots=BeamSlots(torch.arange(batch), 1, torch.arange(1), batch),
        )
        return frontier, early_exit

    def _select(self, frontier: Frontier, trie: TriePaths, beam_width: int) -> Selected:
        """Of all one-label continuations of a frontier, those likely enough, at most `beam_width` a request."""
        num_paths, before = trie.lengths.shape[0], frontier.slots
        path_log_probs = trie.path_log_probs(frontier.nodes, frontier.continuation_class)
        scores = frontier.log_prob.unsqueeze(1) + path_log_probs
        dense = before.table(scores, IMPOSSIBLE).reshape(before.batch, -1)  # (batch, slots before * paths)
        log_prob, continuation = dense.topk(beam_width, dim=1)
        index = (log_prob >= self.policies.log_pruning_threshold).flatten().nonzero().squeeze(1)
        continuation = continuation.flatten().index_select(0, index)
        slot_before = torch.div(continuation, num_paths, rounding_mode="floor")
        row = torch.div(index, beam_width, rounding_mode="floor")
        return Selected(
            parent=before.path_number().index_select(0, row * before.beam_width + slot_before),
            last=continuation - slot_before * num_paths,
            log_prob=log_prob.flatten().index_select(0, index),
            slots=BeamSlots.of(index, beam_width, before.batch),
        )

    def _expand(
        self, frontier: Frontier, before: TriePaths, selected: Selected, trie: TriePaths, entry_alone: bool
    ) -> Frontier:
        """Evaluate `trie`, or its entry alone, after each selected path, which led through `before`."""
        nodes, last = slice(1) if entry_alone else slice(None), selected.last
        depths, attention = trie.depths[nodes], trie.attention[nodes, nodes]
        on_path = before.ancestors.index_select(0, last)
        if before is self.policies.root_trie:
            on_path = on_path[:, 1:]  # it hangs on the suffix's last token, which is no node of its own
        visible = frontier.visible_after(selected, on_path)
        position = frontier.position.index_select(0, selected.parent) + before.lengths.index_select(0, last)
        entry = before.last_tokens.index_select(0, last).unsqueeze(1)
        tokens = torch.cat([entry, trie.tokens[nodes][1:].unsqueeze(0).expand(last.shape[0], -1)], dim=1)
        positions = position.unsqueeze(1) + depths
        varlen = lay_out_blocks(frontier.varlen, selected.slots, visible, attention, positions)
        hidden = self._run(tokens.flatten(), positions.flatten(), varlen)
        not_yet = torch.zeros(last.shape[0], varlen.keys.shape[1], dtype=torch.bool)
        indices = frontier.indices.index_select(0, selected.parent)
        return Frontier(
            nodes=self._nodes(hidden, last.shape[0], depths.shape[0]),
            varlen=varlen,
            visible=torch.cat([visible, not_yet], dim=1),
            trie_start=visible.shape[1],
            position=position,
            log_prob=selected.log_prob,
            continuation_class=before.class_after.index_select(0, last),
            indices=torch.cat([indices, last.unsqueeze(1)], dim=1),
            slots=selected.slots,
        )

    def _run(
        self,
        tokens: Tensor,
        positions: Tensor,
        varlen: VarlenPass,
        wanted: LogitsPositions | None = None,
        early_exit: EarlyExit | None = None,
    ) -> Tensor:
        """The last hidden states (tokens, size), of all tokens or of those wanted, of the requests that stay."""

        def last() -> LogitsPositions | None:
            return wanted if early_exit is None else early_exit.prefill.logits_positions

        model = self.model
        with varlen_attention(model), real_rotary(model), narrowed(model, last), leaving(model, early_exit):
            output = model.get_decoder()(
                input_ids=tokens.unsqueeze(0),
                position_ids=positions.unsqueeze(0),
                cache_position=positions,
                use_cache=False,
                varlen=varlen,
            )
        return output.last_hidden_state[0]  # type: ignore[no-any-return]

    def _nodes(self, hidden: Tensor, rows: int, nodes: int) -> Nodes:
        states = hidden.reshape(rows, nodes, int(hidden.shape[-1]))
        return verdict_head(self.model, states, self.policies.vocabulary)


def _question_cu_seqlens(row_ends: Tensor, questions: int) -> Tensor:
    """(batch * questions + 1,) where the ids of each question begin and end."""
    zero = torch.zeros_like(row_ends[:1])
    starts = torch.cat([zero, row_ends[:-1]])
    ends = ends_by_question(starts, row_ends - starts, torch.arange(1, questions + 1))
    return torch.cat([zero, ends])


def any_of(numbers: Tensor) -> Tensor:
    """Whether there are any. By the shape, which a runtime knows: a sum over nothing is an error under CUDA."""
    return torch._shape_as_tensor(numbers)[0] > 0
