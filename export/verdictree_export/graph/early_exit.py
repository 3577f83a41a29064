"""The early exit: requests that a probe finds plainly safe leave the prefill pass after one of its layers.

For example, the two requests of `prefill_pass`, of which the second leaves after the first layer:

    packed, before the exit  Hi ␣there │ No │ ⏎ > unsafe ⏎ S 1 │ · > unsafe ⏎ S 1
    read by the probe        the last token of each suffix, >, and the mean over Hi ␣there and over No
    packed, after the exit   Hi ␣there │ ⏎ > unsafe ⏎ S 1

The requests that stay are laid out as a batch of their own. Their hidden states, and the keys and values of the layers
before the exit, are taken along, so that each number is the one that it would have been without the exit. Where nobody
stays, nothing more is computed (`onnx_file.branches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from verdictree.verdict_tree.exploration import LEFT
from verdictree_export.graph.blocks import scatter
from verdictree_export.graph.compiled_policies import CompiledPolicies
from verdictree_export.graph.exit_probe import probe_features
from verdictree_export.graph.key_values import KeyValues
from verdictree_export.graph.last_layer import at_tokens
from verdictree_export.graph.prefill_pass import PrefillPass, lay_out_prefill
from verdictree_export.graph.replaced import replaced


class Staying(NamedTuple):
    """Which requests of a batch go on: `rows` (staying,); `log_odds` (batch,) is the probe's, of all."""

    rows: Tensor
    log_odds: Tensor

    def placed(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs of those that stay, (staying, …) each, as the batch's; see `exploration.unpack`."""
        batch = self.log_odds.shape[0]
        label_logits, log_normalizer, top_logit, expansions = outputs
        log_odds = self.log_odds.unsqueeze(1).expand(-1, log_normalizer.shape[1])
        return [
            scatter(label_logits, self.rows, batch, 0.0),
            log_odds.index_put((self.rows,), log_normalizer),
            scatter(top_logit, self.rows, batch, 0.0),
            scatter(expansions, self.rows, batch, LEFT),
        ]

    def all_left(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The batch's outputs where nobody stays; those given, (batch, …) each, say the shapes."""
        label_logits, log_normalizer, top_logit, expansions = outputs
        log_odds = self.log_odds.unsqueeze(1).expand(-1, log_normalizer.shape[1])
        return [label_logits, log_odds + 0 * log_normalizer, top_logit, torch.full_like(expansions, LEFT)]


class EarlyExit:
    """The exit of one prefill pass: made before the pass is run, it knows afterwards who stayed.

    staying   which requests
    prefill   the pass of those alone, from the exit on
    states    (1, packed, size) the hidden states that arrive at the exit
    features  (batch, features) what the probe has read of them
    """

    staying: Staying
    prefill: PrefillPass
    states: Tensor
    features: Tensor

    def __init__(
        self, layer: int, policies: CompiledPolicies, everyone: PrefillPass, cu_seqlens: Tensor, prefix_id: Tensor
    ) -> None:
        """After `layer` layers of the pass over `everyone`, whose prompts are `prefix_id` (batch,)."""
        self.layer = layer
        self._policies = policies
        self._everyone = everyone
        self._cu_seqlens = cu_seqlens
        self._prefix_id = prefix_id
        self._inputs: dict[int, tuple[Any, Any]] = {}

    @property
    def layers_before(self) -> list[list[KeyValues]]:
        """The keys and values of the layers before the exit, of all requests."""
        return self._everyone.varlen.layers

    def decide(self, hidden: Tensor) -> Tensor:
        """The hidden states (1, packed, size) of the requests that stay, from those of all."""
        probe, everyone, policies = self._policies.exit_probe, self._everyone, self._policies
        prompt = policies.prompt(self._prefix_id)
        entries = everyone.logits_positions.tokens.reshape(prompt.shape[0], -1)[:, 0]
        num_tokens = everyone.tokens.shape[0] - everyone.after_width * prompt.shape[0]
        # A copy, behind which nothing need keep the function of the layers' stream (`int8.rotation`).
        self.states = hidden.index_select(1, torch.arange(everyone.tokens.shape[0]))
        self.features = probe_features(self.states[0], entries, everyone.rows[:num_tokens])
        log_odds = probe.log_odds(self.features, prompt)
        stays = probe.stays(log_odds, self._prefix_id)
        rows = stays.nonzero().squeeze(1)
        self.staying = Staying(rows, log_odds)
        lengths = (self._cu_seqlens[1:] - self._cu_seqlens[:-1]).index_select(0, rows)
        self._tokens = stays.index_select(0, everyone.rows).nonzero().squeeze(1)
        self.prefill = lay_out_prefill(
            policies.prefix_cache,
            policies.root_trie,
            everyone.tokens.index_select(0, self._tokens)[: lengths.sum()],
            torch.cat([torch.zeros_like(self._cu_seqlens[:1]), lengths.cumsum(0)]),
            prompt.index_select(0, rows),
        )
        width = self.prefill.varlen.key_positions.shape[1]  # padding stands last, and they may need less of it
        before = everyone.varlen.layers
        self.prefill.varlen.layers.extend([segment.take(rows).first(width)] for (segment,) in before)
        return hidden.index_select(1, self._tokens)

    def after(self, forward: Callable[..., Any], number: int) -> Callable[..., Any]:
        """What layer `number` of the model does, at the exit or after it, for the requests that stay."""

        def run(hidden: Tensor, **inputs: Any) -> Any:
            going_on = self.decide(hidden) if number == self.layer else hidden
            own = {name: self._taken(name, value) for name, value in inputs.items()}
            return forward(going_on, **{**own, "varlen": self.prefill.varlen})

        return run

    def _taken(self, name: str, value: Any) -> Any:
        """Once for all layers that are given the same."""
        if id(value) not in self._inputs:
            self._inputs[id(value)] = value, at_tokens(self._tokens, name, value)
        return self._inputs[id(value)][1]


@contextmanager
def leaving(model: Any, early_exit: EarlyExit | None) -> Iterator[None]:
    """Let requests leave the model in the middle of its layers; None: all pass through all."""
    if early_exit is None:
        yield
        return
    layers = model.get_decoder().layers
    with ExitStack() as stack:
        for number in range(early_exit.layer, len(layers)):
            layer = layers[number]
            stack.enter_context(replaced(layer, "forward", early_exit.after(layer.forward, number)))
        yield
