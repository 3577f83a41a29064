"""Keys and values that attention reads: a segment of a KV cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class KeyValues:
    """Keys and values of one layer, each (rows, key-value heads, tokens, head size)."""

    keys: Tensor
    values: Tensor

    def take(self, rows: Tensor) -> KeyValues:
        """Those of the given rows, which may repeat."""
        return KeyValues(self.keys.index_select(0, rows), self.values.index_select(0, rows))

    def append(self, more: KeyValues) -> KeyValues:
        """These, then `more` tokens of the same rows."""
        return KeyValues(torch.cat([self.keys, more.keys], 2), torch.cat([self.values, more.values], 2))

    def first(self, tokens: int) -> KeyValues:
        """Those of the first `tokens` tokens of each row."""
        return KeyValues(self.keys[:, :, :tokens], self.values[:, :, :tokens])
