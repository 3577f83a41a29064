"""int8: weights quantized per output channel, activations per token, inside the graph.

For a token's activations x (K,) and a weight W (K, N):

    s = max|x| / 127        q = round(x / s) + 128       uint8, this token's own scale
    t_n = max|W_·n| / 127   P ≈ W / t                    int8, a scale for each output channel; see `rounding`
    y_n = s · t_n · Σ_k (q_k − 128) · P_kn

Where 8 bits are too few for a layer's activations, the residual x − s(q − 128), which is at most s/2, is quantized
too, with s/254 in place of s, and gets a second product with the same weight. That leaves the weight's rounding only.

A scale that covers the whole batch, as ONNX Runtime's own dynamic quantization takes, would let one request's text
change another's numbers. Here no number depends on another token, and integer sums do not depend on their order.
Activations are uint8, since that times int8 is the product that processors have an instruction for; for those without
one see `runtime.unsigned_weights`. The embedding's rows are looked up, not multiplied: fp16 costs no time there, and
8 bits would round the input of every layer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping

import onnx_ir as ir

from verdictree_export.int8.activations import Activations
from verdictree_export.int8.integer_operators import IntegerOperators
from verdictree_export.onnx_file.linear_layers import is_embedding, layer_name, linear_weight

_FIRST_LAYERS = 5


def most_sensitive(layer: str) -> bool:
    """Whether this layer's activations suffer most from 8 bits: the first down projections of a small guard."""
    return layer.endswith("down_proj") and _number(layer) < _FIRST_LAYERS


def sensitive(layer: str) -> bool:
    """Whether they suffer: all down projections, and the first layers whole."""
    return layer.endswith("down_proj") or _number(layer) < _FIRST_LAYERS


def _number(layer: str) -> float:
    found = re.search(r"layers\.(\d+)/", layer)
    return int(found[1]) if found else math.inf


def quantizable(model: ir.Model, keep: Collection[str] = ()) -> list[str]:
    """The names of the layers that `quantize` would quantize, in the graph's order."""
    names = dict.fromkeys(layer_name(node) for node in model.graph if _is_quantizable(node))
    return [name for name in names if name is not None and name not in keep]


def quantize(
    model: ir.Model,
    statistics: Mapping[str, Activations],
    keep: Collection[str] = (),
    with_residual: Callable[[str], bool] = most_sensitive,
) -> int:
    """Quantize the linear layers and the embedding of an optimized graph in place; return how many nodes were.

    `statistics` are what `prepare` returned for this graph; a weight without any is rounded to nearest. `keep` names
    layers, as `quantizable` does, that stay in floating point; `with_residual` says of a layer whether its activations
    get a second term for the residual. Passes that share a weight share the int8 one.
    """
    layers = frozenset(quantizable(model, keep))
    chosen = [(node, layer) for node in model.graph if _is_quantizable(node) and (layer := layer_name(node)) in layers]
    operators = IntegerOperators(model.graph, statistics)
    for node, layer in chosen:
        operators.replace(node, with_residual(layer))
    return len(chosen)


def _is_quantizable(node: ir.Node) -> bool:
    return is_embedding(node) or linear_weight(node) is not None
