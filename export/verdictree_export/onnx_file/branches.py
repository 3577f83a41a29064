"""Compute what may not be needed only where it is: what comes after an early exit, and each depth of the search, in a
branch of its own.

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


class Stage(NamedTuple):
    """What a graph computes at one stage of a request, where the boolean tensor `condition` holds.

    Otherwise that of later stages does not hold either, and `fallbacks` maps each output to what stands for it.
    """

    condition: str
    fallbacks: Mapping[str, str]


def branch(
    model: onnx.ModelProto,
    stages: Sequence[Stage],
    element_types: Callable[[Iterable[str]], Mapping[str, int]],
    handed_out: Iterable[str] = (),
) -> int:
    """Put each stage, first to last, into a branch, in place; return how many nodes are put off.

    What other outputs than those of `fallbacks`, or the first stage's condition and fallbacks need is always computed.
    `element_types` says what the named tensors of the graph hold, as ONNX counts types. Those `handed_out` leave their
    branches, whether or not another reads them.
    """
    outputs = list(stages[0].fallbacks)
    always, *parts = _parts(model.graph, stages, outputs)
    count, known = sum(map(len, parts)), sizes(model.graph)
    parts = [with_own_sizes(part, known, stage.condition) for stage, part in zip(stages, parts, strict=True)]
    choices = [
        with_own_sizes([helper.make_node("If", [condition], [], f"{condition}/branch")], known, f"{condition}/outside")
        for condition, _ in stages
    ]
    wanted = set(handed_out)
    crossing = [_crossing(parts[at], [*parts[at + 1 :], *choices[at + 1 :]], wanted) for at in range(len(parts))]
    types = element_types({name for names in crossing for name in names})
    for at, (stage, part) in enumerate(zip(stages, parts, strict=True)):
        otherwise = _otherwise(stage, stages[at + 1] if at + 1 < len(stages) else None, crossing[at])
        decided = {name for node in otherwise for name in node.output}
        otherwise += [_constant(name, types[name], []) for name in crossing[at] if name not in decided]
        _put_branches(choices[at][-1], stage.condition, part, otherwise)
    del model.graph.node[:]
    model.graph.node.extend([*always, *itertools.chain(*choices)])
    return count


def _parts(graph: onnx.GraphProto, stages: Sequence[Stage], outputs: Sequence[str]) -> list[list[onnx.NodeProto]]:
    """The nodes that are always computed, then for each stage those that it needs and no stage before it."""
    known = _needed(graph, [one.name for one in graph.output if one.name not in outputs])
    wanted = [[stage.condition, *stage.fallbacks.values()] for stage in stages]
    parts: list[list[onnx.NodeProto]] = []
    before: set[str] = set()
    for names in (*wanted, outputs):
        known = known | _needed(graph, names)
        parts.append(
            [node for node in graph.node if before.isdisjoint(node.output) and not known.isdisjoint(node.output)]
        )
        before = known
    return parts


def _otherwise(stage: Stage, following: Stage | None, crossing: Sequence[str]) -> list[onnx.NodeProto]:
    """What is computed in a stage's place: its fallbacks, as those of the next stage, or as the outputs at last."""
    results = following.fallbacks if following else {name: name for name in stage.fallbacks}
    nodes = [helper.make_node("Identity", [stage.fallbacks[name]], [results[name]]) for name in stage.fallbacks]
    if following and following.condition in crossing:
        nodes.append(_constant(following.condition, TensorProto.BOOL, [False]))
    return nodes


def _crossing(part: Sequence[onnx.NodeProto], later: Sequence[Sequence[onnx.NodeProto]], wanted: set[str]) -> list[str]:
    """What later parts read of one, and what is wanted of it anyway."""
    read = {name for nodes in later for node in nodes for name in _read_by(node)} | wanted
    return [name for node in part for name in node.output if name in read]


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
