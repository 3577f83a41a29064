"""Every weight of a model comes from its checkpoint, and nothing of the checkpoint is left over.

transformers fills what is missing with random numbers and leaves out what it does not know, with a warning. A guard
with one random layer would answer nonsense, in the right form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from verdictree.errors import UnsupportedGuard

_TEXT_MODEL = ("language_model.", "model.language_model.", "lm_head.", "model.layers.", "model.embed_tokens.")
# Scales of quantized weights, beside which config.json must say how to read them.
_QUANTIZED = (
    ".qweight",
    ".qzeros",
    ".scales",
    ".weight_scale",
    ".weight_packed",
    ".weight_scale_inv",
    ".SCB",
    ".absmax",
)
_CACHE_SCALES = (".k_scale", ".v_scale")  # for a KV cache in 8 bits, which is not what is exported
_SHOWN = 3


def check_complete(source: str, missing: Iterable[str], unexpected: Iterable[str], is_part: bool) -> None:
    """Raise UnsupportedGuard for weights that are missing from a checkpoint, or that its model has no place for.

    Of a checkpoint of which the model `is_part`, the weights of other parts (vision) may be left over.
    """
    left = [name for name in unexpected if not name.endswith(_CACHE_SCALES)]
    if is_part:
        left = [name for name in left if name.startswith(_TEXT_MODEL)]
    if any(name.endswith(_QUANTIZED) for name in left):
        raise UnsupportedGuard(
            f"expected a quantization_config in config.json of {source!r}, whose weights are quantized "
            f"({_some(left)}), got none; give the unquantized checkpoint"
        )
    for names, what in ((sorted(missing), "lacks"), (left, "also has")):
        if names:
            raise UnsupportedGuard(
                f"expected the weights that the configuration of {source!r} means, got a checkpoint that {what} "
                f"{_some(names)}; they are of two models, or a part was not downloaded: download the checkpoint again"
            )


def check_finite(source: str, model: Any) -> None:
    """Raise UnsupportedGuard for a weight that is no finite number."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UnsupportedGuard(
                f"expected finite numbers from the weights of {source!r}, got NaN or infinity in {name}; "
                "download the checkpoint again, or ask its maker"
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
