"""The probe of the early exit: constants that a release's policies decide, beside their prompts and tries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEVER = -1e9
"""The threshold of a prompt whose requests never leave; finite, so that every runtime compares with it alike."""


def probe_features(states: Tensor, entries: Tensor, rows: Tensor) -> Tensor:
    """(batch, 2 * size) what probes read of hidden states (packed, size), each half with a root mean square of 1.

    First that of the last token of each request's suffix, `entries` (batch,), which has read the whole conversation;
    then the mean over the conversation's own tokens, of which `rows` (tokens,) says whose they are: they stand first.
    """
    batch, tokens = entries.shape[0], rows.shape[0]
    own = (rows == torch.arange(batch).unsqueeze(1)).float()
    states = states.float()
    sums = torch.matmul(own, states[:tokens])
    halves = [states.index_select(0, entries), sums / own.sum(1, keepdim=True).clamp(min=1.0)]
    return torch.cat([half * torch.rsqrt((half * half).mean(-1, keepdim=True) + 1e-6) for half in halves], dim=1)


class ExitProbe(nn.Module):
    """A linear probe for each prompt, and below which log-odds its requests leave.

    Buffers: `weight` (prompts, features), `offset` and `threshold` (prompts,).
    """

    weight: Tensor
    offset: Tensor
    threshold: Tensor

    def __init__(self, weight: Tensor, offset: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("offset", offset)
        self.register_buffer("threshold", threshold)

    @classmethod
    def blank(cls, num_prompts: int, size: int) -> ExitProbe:
        """That of a guard with hidden states of this size whose requests never leave."""
        return cls(torch.zeros(num_prompts, 2 * size), torch.zeros(num_prompts), torch.full((num_prompts,), NEVER))

    @property
    def size(self) -> int:
        """Of the hidden states that are read."""
        return self.weight.shape[1] // 2

    def followed_by(self, num_prompts: int) -> ExitProbe:
        """This one, with so many prompts more whose requests never leave."""
        parts = zip(self.buffers(), ExitProbe.blank(num_prompts, self.size).buffers(), strict=True)
        return ExitProbe(*(torch.cat(pair) for pair in parts))

    def prompt(self, prefix_id: Tensor) -> Tensor:
        """(rows,) the prompt that is meant by each number: those from the number of prompts on mean "in full"."""
        return torch.remainder(prefix_id, self.threshold.shape[0])

    def log_odds(self, features: Tensor, prompt: Tensor) -> Tensor:
        """(rows,) of features (rows, features), each by its prompt's probe."""
        weight, offset = self.weight.index_select(0, prompt), self.offset.index_select(0, prompt)
        return (features * weight).sum(-1) + offset

    def stays(self, log_odds: Tensor, prefix_id: Tensor) -> Tensor:
        """(rows,) which requests go on. Log-odds that are no number let nobody leave."""
        leaves = log_odds < self.threshold.index_select(0, self.prompt(prefix_id))
        return torch.logical_not(leaves) | (prefix_id >= self.threshold.shape[0])
