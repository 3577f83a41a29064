"""The paths that the beam search has followed: those of one depth, those chosen next, and all that was evaluated.

What a path attends to is kept as marks over the keys of its request. For example, the first request of `prefill_pass`
and its paths S1 and S10. Of the trie that a path led through it sees its own nodes, which are put in where they stand:

    keys of request 0      Judge ␣this .⏎ ⏎ > unsafe ⏎ S 1 Hi ␣there
    after the prefill pass x     x     x  x x ·      · · · x  x
    after S1               x     x     x  x x x      x x · x  x
    after S10              x     x     x  x x x      x x x x  x

The path S1 was chosen at the node `S`; its last token, `1`, is the entry of the next trie, and fed there. Of S10 the
last token is `0`, chosen at the node `1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from verdictree_export.graph.attention import VarlenPass
from verdictree_export.graph.blocks import BeamSlots, visible_block
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.trie_paths import Nodes


class Selected(NamedTuple):
    """The paths that are to be expanded: parent's number, last index and log-probability, each (paths,), and place."""

    parent: Tensor
    last: Tensor
    log_prob: Tensor
    slots: BeamSlots


@dataclass
class Frontier:
    """The paths of one depth that were evaluated, over all requests; at first the requests themselves.

    nodes     the trie after each path, a verdict that opens a list and then labels
    varlen    the pass that evaluated them, with the keys and values of everything up to and including them
    visible   (paths, keys) what a path's continuation attends to; of this trie's nodes none yet
    trie_start  the first key of this trie's nodes
    position  (paths,) position of the token that the trie hangs on
    log_prob  (paths,) log-probability of the path
    continuation_class  (paths,) of its last label; the number of its list without labels; 0 for a request
    indices   (paths, length) the path as `verdictree.verdict_tree.onward.Path` counts it
    slots     the paths' beam slots
    """

    nodes: Nodes
    varlen: VarlenPass
    visible: Tensor
    trie_start: int
    position: Tensor
    log_prob: Tensor
    continuation_class: Tensor
    indices: Tensor
    slots: BeamSlots

    def visible_after(self, selected: Selected, on_path: Tensor) -> Tensor:
        """(paths, keys) what longer paths attend to: what their parents did, and of the trie after those the nodes on
        the path, `on_path` (paths, nodes)."""
        inserted = visible_block(self.slots, selected.parent, on_path)
        seen, start = self.visible.index_select(0, selected.parent), self.trie_start
        return torch.cat([seen[:, :start], inserted, seen[:, start + inserted.shape[1] :]], dim=1)


@dataclass
class Evaluated:
    """What was evaluated so far.

    `nodes` are those of the root trie, then those of each depth's beam slots. `paths` are those slots' indices plus
    one, zero where a path has ended or none is, (batch, beam width, depths).
    """

    policies: CompiledPolicies
    nodes: list[Nodes]
    paths: list[Tensor]

    def add(self, frontier: Frontier) -> None:
        """Add the paths of the next depth."""
        slots, missing = frontier.slots, len(self.policies.tries) - len(self.paths) - 1
        batch = slots.batch
        dense = Nodes(*(slots.table(part, 0.0) for part in frontier.nodes))
        self.nodes.append(Nodes(*(part.reshape(batch, -1, *part.shape[2:]) for part in dense)))
        unused = torch.zeros(frontier.indices.shape[0], missing, dtype=torch.long)  # Pad has no integers under CUDA
        indices = torch.cat([frontier.indices + 1, unused], dim=1)
        self.paths.append(slots.table(indices, 0).reshape(batch, slots.beam_width, -1))

    def outputs(self, batch: int) -> list[Tensor]:
        """What `exploration.unpack` takes apart, of questions, if no longer path is expanded."""
        widths, done = self.policies.beam_widths, len(self.paths)
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
