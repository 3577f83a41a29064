"""Rotary position embedding (arXiv 2104.09864) as one operator of ONNX Runtime, in place of the eight that are traced.

Modelling code computes for the halves x₁, x₂ of each head, with cos and sin whose halves are equal,

    x · cos + (−x₂, x₁) · sin

and a runtime walks over all queries and keys once for each of slice, negation, join, product and sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from verdictree_export.onnx_file import contrib

_FIRST_AXIS, _FROM_THE_FIRST = "rotary/first_axis", "rotary/from_the_first"


class _Rotary(NamedTuple):
    """The tensors that a rotary embedding is computed from: x (1, heads, tokens, head size), cos and sin."""

    x: str
    cos: str
    sin: str


def fuse_rotary(model: onnx.ModelProto) -> int:
    """Replace each rotary embedding of whole heads in place; return how many. Other kinds are left as they are."""
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    halves: dict[str, str] = {}
    count = 0

    def half(name: str) -> str:
        if name not in halves:
            halves[name] = f"{name}/half"
            nodes.append(helper.make_node("Squeeze", [name, _FIRST_AXIS], [f"{name}/rows"], name=f"{name}/rows"))
            outputs = [halves[name], f"{name}/other_half"]
            nodes.append(helper.make_node("Split", [f"{name}/rows"], outputs, name=halves[name], axis=1, num_outputs=2))
        return halves[name]

    for node in graph.node:
        found = _find(node, producers)
        if found is None:
            nodes.append(node)
            continue
        # Row i of cos and sin belongs to packed token i, so "positions" count the rows, from the first.
        inputs = [found.x, _FROM_THE_FIRST, half(found.cos), half(found.sin)]
        nodes.append(helper.make_node("RotaryEmbedding", inputs, node.output, name=node.name, domain=contrib.DOMAIN))
        count += 1
    if count:
        del graph.node[:]
        graph.node.extend(nodes)
        zero = np.zeros(1, dtype=np.int64)
        graph.initializer.extend(numpy_helper.from_array(zero, name) for name in (_FIRST_AXIS, _FROM_THE_FIRST))
        contrib.declare(model)
    return count


def _find(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> _Rotary | None:
    """What the sum `node` is the rotary embedding of."""
    if node.op_type != "Add":
        return None
    straight, turned = (producers.get(name) for name in node.input)
    if straight is None or turned is None or {straight.op_type, turned.op_type} != {"Mul"}:
        return None
    (x, cos), (turn, sin) = straight.input, turned.input
    joined, factors = producers.get(turn), [producers.get(name) for name in (cos, sin)]
    if joined is None or joined.op_type != "Concat" or len(joined.input) != 2:
        return None
    negation, first = (producers.get(name) for name in joined.input)
    if negation is None or negation.op_type != "Neg" or _sliced(first) != x:
        return None
    if _sliced(producers.get(negation.input[0])) != x:
        return None
    broadcast = [one.input[0] for one in factors if one is not None and one.op_type == "Unsqueeze"]
    return _Rotary(x, *broadcast) if len(broadcast) == 2 else None


def _sliced(node: onnx.NodeProto | None) -> str | None:
    return node.input[0] if node is not None and node.op_type == "Slice" else None
