"""Compute what may not be needed only where it is: each depth of the search in a branch of its own.

The branches stand side by side. Within one another would be simpler, but there ONNX Runtime packs no weights: products
with few tokens take twice as long, and the unpacked weights stay in memory.

For example, a graph with output y, which is `minus` where no x is above 0, and `twice` where none is above 5:

    most = ReduceMax(x)
    any_0 = Greater(most, zero)
    minus = Neg(x)
    table = Reshape(minus, square)
    twice = Add(table, table)
    least = ReduceMin(table)
    any_1 = Less(least, minus_five)
    y = Mul(twice, table)

    becomes

    most = ReduceMax(x)
    any_0 = Greater(most, zero)
    minus = Neg(x)
    twice, any_1, table = if any_0
      then: gives twice/any_0, any_1/any_0, table/any_0
        table/any_0 = Reshape(minus, square)
        twice/any_0 = Add(table/any_0, table/any_0)
        least = ReduceMin(table/any_0)
        any_1/any_0 = Less(least, minus_five)
      otherwise: gives twice/any_0, any_1/any_0, table/any_0
        twice/any_0 = Identity(minus)
        any_1/any_0 = Constant()
        table/any_0 = Constant()
    y = if any_1
      then: gives y/any_1
        y/any_1 = Mul(twice, table)
      otherwise: gives y/any_1
        y/any_1 = Identity(twice)

What a later branch reads (`table`) leaves the branch too, as an empty constant where it is not computed; and so does
the later condition (`any_1`), as false. Sizes do not leave: they are computed anew where they are read, a condition
among them outside. Such a condition must not hold where the tensors that it measures are empty.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from verdictree_export.onnx_file.sizes import sizes, with_own_sizes


class SearchDepth(NamedTuple):
    """What a graph computes at one depth of the search, where the boolean tensor `condition` holds.

    Otherwise that of greater depths does not hold either, and `fallbacks` maps each output to what stands for it.
    """

    condition: str
    fallbacks: Mapping[str, str]


def branch(
    model: onnx.ModelProto, depths: Sequence[SearchDepth], element_types: Callable[[Iterable[str]], Mapping[str, int]]
) -> int:
    """Put each depth, first to last, into a branch, in place; return how many nodes are put off.

    What other outputs than those of `fallbacks`, or the first depth's condition and fallbacks need is always computed.
    `element_types` says what the named tensors of the graph hold, as ONNX counts types.
    """
    outputs = list(depths[0].fallbacks)
    always, *stages = _stages(model.graph, depths, outputs)
    count, known = sum(map(len, stages)), sizes(model.graph)
    stages = [with_own_sizes(stage, known, depth.condition) for depth, stage in zip(depths, stages, strict=True)]
    choices = [
        with_own_sizes([helper.make_node("If", [condition], [], f"{condition}/branch")], known, f"{condition}/outside")
        for condition, _ in depths
    ]
    crossing = [_crossing(stages[at], [*stages[at + 1 :], *choices[at + 1 :]]) for at in range(len(stages))]
    types = element_types({name for names in crossing for name in names})
    for at, (depth, stage) in enumerate(zip(depths, stages, strict=True)):
        otherwise = _otherwise(depth, depths[at + 1] if at + 1 < len(depths) else None, crossing[at])
        decided = {name for node in otherwise for name in node.output}
        otherwise += [_constant(name, types[name], []) for name in crossing[at] if name not in decided]
        _put_branches(choices[at][-1], depth.condition, stage, otherwise)
    del model.graph.node[:]
    model.graph.node.extend([*always, *itertools.chain(*choices)])
    return count


def _stages(
    graph: onnx.GraphProto, depths: Sequence[SearchDepth], outputs: Sequence[str]
) -> list[list[onnx.NodeProto]]:
    """The nodes that are always computed, then for each depth those that it needs and no depth before it."""
    known = _needed(graph, [one.name for one in graph.output if one.name not in outputs])
    wanted = [[depth.condition, *depth.fallbacks.values()] for depth in depths]
    stages: list[list[onnx.NodeProto]] = []
    before: set[str] = set()
    for names in (*wanted, outputs):
        known = known | _needed(graph, names)
        stages.append(
            [node for node in graph.node if before.isdisjoint(node.output) and not known.isdisjoint(node.output)]
        )
        before = known
    return stages


def _otherwise(depth: SearchDepth, following: SearchDepth | None, crossing: Sequence[str]) -> list[onnx.NodeProto]:
    """What is computed in a depth's place: its fallbacks, as those of the next depth, or as the outputs at last."""
    results = following.fallbacks if following else {name: name for name in depth.fallbacks}
    nodes = [helper.make_node("Identity", [depth.fallbacks[name]], [results[name]]) for name in depth.fallbacks]
    if following and following.condition in crossing:
        nodes.append(_constant(following.condition, TensorProto.BOOL, [False]))
    return nodes


def _crossing(stage: Sequence[onnx.NodeProto], later: Sequence[Sequence[onnx.NodeProto]]) -> list[str]:
    """What later stages read of one."""
    read = {name for nodes in later for node in nodes for name in _read_by(node)}
    return [name for node in stage for name in node.output if name in read]


def _constant(name: str, element_type: int, values: Sequence[bool]) -> onnx.NodeProto:
    """One value, or none: what stands for a tensor that is not computed, and that nothing computed reads."""
    value = helper.make_tensor(name, element_type, [] if values else [0], values)
    return helper.make_node("Constant", [], [name], value=value)


def _put_branches(
    choice: onnx.NodeProto, condition: str, then: Sequence[onnx.NodeProto], otherwise: Sequence[onnx.NodeProto]
) -> None:
    """Let the node `choice` run `then` or `otherwise`, which makes its outputs.

    No name may stand inside and outside a branch, so inside the outputs are called by the condition too.
    """
    outputs = [name for node in otherwise for name in node.output]
    inside = {name: f"{name}/{condition}" for name in outputs}
    values = [helper.make_empty_tensor_value_info(inside[name]) for name in outputs]
    kept = [_renamed(node, inside, inside) for node in then]
    fallbacks = [_renamed(node, {}, inside) for node in otherwise]  # which read what stands outside
    choice.output.extend(outputs)
    choice.attribute.append(helper.make_attribute("then_branch", helper.make_graph(kept, "then", [], values)))
    choice.attribute.append(helper.make_attribute("else_branch", helper.make_graph(fallbacks, "otherwise", [], values)))


def _renamed(node: onnx.NodeProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [inputs.get(name, name) for name in node.input]
    copy.output[:] = [outputs.get(name, name) for name in node.output]
    return copy


def _tensors_read(graph: onnx.GraphProto) -> set[str]:
    """The names of all tensors that the graph's nodes, those of their branches included, and its caller read."""
    return {value.name for value in graph.output}.union(*map(_read_by, graph.node))


def _read_by(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, those that its branches read included."""
    return set(node.input).union(*(_tensors_read(attribute.g) for attribute in node.attribute))


def _needed(graph: onnx.GraphProto, names: Iterable[str]) -> set[str]:
    """All tensors that these are computed from, and these."""
    found = set(names)
    for node in reversed(graph.node):  # in topological order, so every reader comes before
        if not found.isdisjoint(node.output):
            found.update(_read_by(node))
    return found
