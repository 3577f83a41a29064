"""Accuracy of torch's functions on a CPU."""

from __future__ import annotations

import torch

_FUNCTIONS = (
    *(torch.acos, torch.asin, torch.atan, torch.cos, torch.cosh, torch.sin, torch.sinh, torch.tan, torch.tanh),
    *(torch.exp, torch.expm1, torch.log, torch.log10, torch.log1p, torch.log2, torch.sqrt),
    *(torch.erf, torch.erfc, torch.erfinv),
)


def settle_vector_math() -> None:
    """Call each function that torch leaves to MKL's vector library once, on one thread.

    If the first call comes from several threads at once, one of them may compute its part with a kernel of low accuracy
    (github.com/pytorch/pytorch/issues/188792). On a busy machine a prefix KV cache had cosines and sines that were 6e-5
    off, and its graph log-probabilities that were 8e-4 off instead of 4e-5.
    """
    for dtype in (torch.float32, torch.float64):
        value = torch.full((1,), 0.5, dtype=dtype)
        for function in _FUNCTIONS:
            function(value)
