"""Move large channels from activations, where rounding to 8 bits suffers from them, into weights; same function.

For the down projection D of a gated MLP, (a ∘ xU) D with channels j:

    c_j = max|a ∘ xU|_j^α / max|D_j·|^(1−α)        U_·j → U_·j / c_j        D_j· → c_j D_j·

(SmoothQuant, arXiv 2211.10438, equation 4). Nothing is added at run time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from verdictree_export.int8.activations import Activations
from verdictree_export.onnx_file.linear_layers import linear_layers, linear_weight, read, write
from verdictree_export.onnx_file.neighbours import readers, source

STRENGTH = 0.6
_LEAST = 1e-5


def smooth_gated(model: ir.Model, statistics: Mapping[str, Activations], strength: float = STRENGTH) -> int:
    """Smooth the inputs of down projections of an optimized graph in place; return how many layers' were.

    `statistics` are changed along: they stay those of the graph. A layer whose input is not the product of an up
    projection and an activation, in every pass, is left as it is.
    """
    count = 0
    for down, up in _pairs(model).items():
        found = statistics.get(down.name or "")
        if found is None:
            continue
        weight = read(down)
        channels = _channel_scales(found.maximum, np.abs(weight).max(axis=1), strength)
        write(up, read(up) / channels)
        write(down, weight * channels[:, None])
        found.maximum = found.maximum / channels
        found.second_moment = found.second_moment / np.outer(channels, channels)
        count += 1
    return count


def _channel_scales(
    activations: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], strength: float
) -> npt.NDArray[np.float32]:
    scales = np.maximum(activations, _LEAST) ** strength / np.maximum(weights, _LEAST) ** (1 - strength)
    return np.asarray(scales / np.median(scales), dtype=np.float32)


def _pairs(model: ir.Model) -> dict[ir.Value, ir.Value]:
    """Down projection's weight → weight of the up projection that alone, and that feeds nothing else."""
    pairs: dict[ir.Value, ir.Value] = {}
    weights = dict.fromkeys(weight for node in linear_layers(model) if (weight := linear_weight(node)) is not None)
    for down in weights:
        ups = {_up_weight(node) for node in down.consumers()}
        up = ups.pop() if len(ups) == 1 else None
        if up is not None and len(up.consumers()) == len(down.consumers()) and up not in pairs.values():
            pairs[down] = up
    return pairs


def _up_weight(down: ir.Node) -> ir.Value | None:
    gated = source(down, 0)
    if gated is None or gated.op_type != "Mul" or not _feeds_only(gated.outputs[0], down):
        return None
    for factor in (source(gated, 0), source(gated, 1)):
        weight = linear_weight(factor)
        if factor is not None and weight is not None and _feeds_only(factor.outputs[0], gated):
            return weight
    return None


def _feeds_only(value: ir.Value, node: ir.Node) -> bool:
    return [reader for reader in readers(value) if reader.op_type != "Shape"] == [node]
