"""Move large channels from activations, where rounding to 8 bits suffers from them, into weights; same function.

For the down projection D of a gated MLP, (a ∘ xU) D with channels j:

    c_j = max|a ∘ xU|_j^α / max|D_j·|^(1−α)        U_·j → U_·j / c_j        D_j· → c_j D_j·

(SmoothQuant, arXiv 2211.10438, equation 4). Nothing is added at run time.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from verdictree_export.int8.activations import Activations
from verdictree_export.onnx_file.graph_index import GraphIndex, layer_name

STRENGTH = 0.6
_LEAST = 1e-5


def smooth_gated(
    model: onnx.ModelProto, statistics: Mapping[str, Activations], strength: float = STRENGTH
) -> list[str]:
    """Smooth the inputs of down projections of an optimized graph in place; the names of the layers that were.

    `statistics` are changed along: they stay those of the graph. A layer whose input is not the product of an up
    projection and an activation, in every pass, is left as it is.
    """
    index, smoothed = GraphIndex(model), dict[str, str]()
    for down, up in _pairs(index).items():
        if down not in statistics:
            continue
        found, weight = statistics[down], index.read(down)
        channels = _channel_scales(found.maximum, np.abs(weight).max(axis=1), strength)
        index.write(up, index.read(up) / channels)
        index.write(down, weight * channels[:, None])
        found.maximum = found.maximum / channels
        found.second_moment = found.second_moment / np.outer(channels, channels)
        smoothed[down] = layer_name(index.consumers[down][0]) or down
    return list(smoothed.values())


def _channel_scales(
    activations: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], strength: float
) -> npt.NDArray[np.float32]:
    scales = np.maximum(activations, _LEAST) ** strength / np.maximum(weights, _LEAST) ** (1 - strength)
    return np.asarray(scales / np.median(scales), dtype=np.float32)


def _pairs(index: GraphIndex) -> dict[str, str]:
    """Down projection's weight → weight of the up projection that alone, and that feeds nothing else."""
    pairs: dict[str, str] = {}
    for down in dict.fromkeys(node.input[1] for node in index.linear_layers()):
        ups = {_up_weight(index, node) for node in index.consumers[down]}
        up = ups.pop() if len(ups) == 1 else None
        if up is not None and len(index.consumers[up]) == len(index.consumers[down]) and up not in pairs.values():
            pairs[down] = up
    return pairs


def _up_weight(index: GraphIndex, down: onnx.NodeProto) -> str | None:
    gated = index.producers.get(down.input[0])
    if gated is None or gated.op_type != "Mul" or not _feeds_only(index, gated.output[0], down):
        return None
    for name in gated.input:
        weight = index.linear_weight(index.producers.get(name))
        if weight is not None and _feeds_only(index, name, gated):
            return weight
    return None


def _feeds_only(index: GraphIndex, name: str, node: onnx.NodeProto) -> bool:
    return [reader for reader in index.readers(name) if reader.op_type != "Shape"] == [node]
