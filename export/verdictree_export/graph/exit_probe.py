"""The probe of the early exit: constants that a release's policies decide, beside their prompts and tries."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NEVER = -1e9
"""The threshold of a prompt whose requests never leave; finite, so that every runtime compares with it alike."""


class ExitProbe(nn.Module):
    """A linear probe for each prompt, and below which log-odds its requests leave.

    Buffers: `weight` (prompts, size), `offset` and `threshold` (prompts,).
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
        """That of a guard whose requests never leave."""
        return cls(torch.zeros(num_prompts, size), torch.zeros(num_prompts), torch.full((num_prompts,), NEVER))

    def prompt(self, prefix_id: Tensor) -> Tensor:
        """(rows,) the prompt that is meant by each number: those from the number of prompts on mean "in full"."""
        return torch.remainder(prefix_id, self.threshold.shape[0])

    def log_odds(self, states: Tensor, prompt: Tensor) -> Tensor:
        """(rows,) of hidden states (rows, size), which are brought to a root mean square of 1."""
        states = states.float()
        scale = torch.rsqrt((states * states).mean(-1) + 1e-6)
        weight, offset = self.weight.index_select(0, prompt), self.offset.index_select(0, prompt)
        return (states * weight).sum(-1) * scale + offset

    def stays(self, log_odds: Tensor, prefix_id: Tensor) -> Tensor:
        """(rows,) which requests go on. Log-odds that are no number let nobody leave."""
        leaves = log_odds < self.threshold.index_select(0, self.prompt(prefix_id))
        return torch.logical_not(leaves) | (prefix_id >= self.threshold.shape[0])
