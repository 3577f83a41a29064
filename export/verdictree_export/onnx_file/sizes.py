"""Sizes: what a graph computes of the shapes of tensors, and of nothing else.

A runtime knows shapes on the host, whatever the device. But a size that a branch reads from outside lies on the device,
like all that stands outside, and is copied back for every reshape and slice: under CUDA each copy waits for all that
was launched. So a branch reads the shapes of the tensors themselves, which costs nothing, and computes its sizes anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Mod", "Cast", "Concat", "Squeeze", "Unsqueeze", "Where", "Identity"}
_COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Not", "Xor"}
_PICKS = {"Gather", "Slice", "Reshape"}  # where what is picked from is a size; else a size is only where to pick

Nodes = Sequence[onnx.NodeProto]
Sizes = Mapping[str, onnx.NodeProto]


def sizes(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The nodes that compute sizes, by their output's name: numbers, comparisons of them, and constants."""
    weights = {one.name for one in graph.initializer}
    found: dict[str, onnx.NodeProto] = {}
    for node in graph.node:  # in topological order
        if node.op_type in ("Shape", "Constant") or _of_sizes(node, found, weights):
            found[node.output[0]] = node
    return found


def _of_sizes(node: onnx.NodeProto, found: Sizes, weights: set[str]) -> bool:
    if node.op_type == "ConstantOfShape":  # of as many numbers as a tensor has axes; others are no sizes
        shape = found.get(node.input[0])
        return shape is not None and shape.op_type == "Shape" and shape.input[0] in found
    if node.op_type in _PICKS and node.input[0] not in found:
        return False
    computed = {name for name in node.input if name} - weights
    return node.op_type in _ARITHMETIC | _COMPARISONS | _PICKS and bool(computed) and computed <= found.keys()


def with_own_sizes(nodes: Nodes, known: Sizes, place: str) -> list[onnx.NodeProto]:
    """Copies of `nodes` that read no size from outside, after the nodes that compute those.

    `known` are the graph's sizes. What is computed anew has names of its own, which end in `place`.
    """
    made = {name for node in nodes for name in node.output}
    own: dict[str, onnx.NodeProto] = {}
    renamed = [_with_own_inputs(node, known, made, own, place) for node in nodes]
    return [*own.values(), *renamed]


def _with_own_inputs(
    node: onnx.NodeProto, known: Sizes, made: set[str], own: dict[str, onnx.NodeProto], place: str
) -> onnx.NodeProto:
    """A copy of `node` that reads sizes from `own`, into which those are put that are not there yet."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for at, name in enumerate(node.input):
        if name in known and name not in made:
            here = copy.input[at] = f"{name}/{place}"
            if here not in own:
                size = _with_own_inputs(known[name], known, made, own, place)
                size.name, size.output[:] = here, [here]
                own[here] = size
    return copy
