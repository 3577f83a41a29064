"""One training step as one sequence: the constant prefix once, then the rows, each blind to the others.

Each row attends to the prefix and, causally, to itself, and its positions begin right after the prefix. So the logits
and the gradients are those of running the rows one by one, and neither padding nor a second prefix is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

_NAME = "prefix_and_rows"


@dataclass(frozen=True)
class EncodedRow:
    """A row's token ids after the prefix: what the guard reads, then the verdict, ended by the end of the turn."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """All ids that are fed; the last one of the answer is only predicted."""
        return self.prompt + self.answer[:-1]


@dataclass(frozen=True)
class Borders:
    """Where the rows lie: row i is tokens [starts[i], ends[i]), the prefix is tokens [0, prefix)."""

    prefix: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    masks: tuple[Tensor, ...]


@dataclass(frozen=True)
class PackedStep:
    """The packed rows.

    ids, positions  (tokens,)
    predicting      (answer tokens of all rows,) the tokens after which an answer token stands
    targets         (answer tokens of all rows,) that answer token
    """

    ids: Tensor
    positions: Tensor
    predicting: Tensor
    targets: Tensor
    borders: Borders

    def to(self, device: torch.device) -> PackedStep:
        """The same step on another device."""
        borders = replace(self.borders, masks=tuple(mask.to(device) for mask in self.borders.masks))
        return PackedStep(
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            predicting=self.predicting.to(device),
            targets=self.targets.to(device),
            borders=borders,
        )


def pack(prefix: Sequence[int], rows: Sequence[EncodedRow]) -> PackedStep:
    """Pack encoded rows behind their common prefix."""
    ids, positions = list(prefix), list(range(len(prefix)))
    predicting: list[int] = []
    starts: list[int] = []
    for row in rows:
        starts.append(len(ids))
        first = len(ids) + len(row.prompt) - 1
        predicting += range(first, first + len(row.answer))
        ids += row.inputs
        positions += range(len(prefix), len(prefix) + len(row.inputs))
    ends = [*starts[1:], len(ids)]
    masks = tuple(_mask(len(prefix), end - start) for start, end in zip(starts, ends, strict=True))
    return PackedStep(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        predicting=torch.tensor(predicting),
        targets=torch.tensor([token for row in rows for token in row.answer]),
        borders=Borders(len(prefix), tuple(starts), tuple(ends), masks),
    )


def attend_packed(model: Any) -> None:
    """Make the model attend as packed rows do; from then on each call of it needs the rows' borders."""
    model.config._attn_implementation = _NAME


def answer_loss(model: Any, step: PackedStep) -> Tensor:
    """-Σ log p(answer | prompt) over the rows; a scalar.

    `model` is a causal LM of the Llama shape, a `model` and an `lm_head`. The head sees answer positions only.
    """
    hidden = model.model(
        input_ids=step.ids[None], position_ids=step.positions[None], use_cache=False, borders=step.borders
    ).last_hidden_state[0]
    logits = model.lm_head(hidden[step.predicting]).float()
    return functional.cross_entropy(logits, step.targets, reduction="sum")


def _mask(prefix: int, length: int) -> Tensor:
    return torch.ones(length, prefix + length, dtype=torch.bool).tril(prefix)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: None, *, scaling: float, borders: Borders, **_: Any
) -> tuple[Tensor, None]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    shared = slice(0, borders.prefix)
    attend = functional.scaled_dot_product_attention
    mixed = [attend(query[:, :, shared], key[:, :, shared], value[:, :, shared], is_causal=True, scale=scaling)]
    for start, end, mask in zip(borders.starts, borders.ends, borders.masks, strict=True):
        keys = torch.cat([key[:, :, shared], key[:, :, start:end]], 2)
        values = torch.cat([value[:, :, shared], value[:, :, start:end]], 2)
        mixed.append(attend(query[:, :, start:end], keys, values, attn_mask=mask, scale=scaling))
    return torch.cat(mixed, 2).transpose(1, 2), None


AttentionInterface.register(_NAME, _attention)
