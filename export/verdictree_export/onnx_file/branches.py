"""Compute what may not be needed only where it is: each level of label paths in a branch of its own.

The branches stand side by side. Within one another would be simpler, but there ONNX Runtime packs no weights: products
with few tokens take twice as long, and the unpacked weights stay in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from verdictree_export.onnx_file.graph_index import needed, read_by


class Level(NamedTuple):
    """A part of a graph that is computed where the boolean tensor `condition` holds.

    Otherwise that of later levels does not hold either, and `fallbacks` maps each output to what stands for it.
    """

    condition: str
    fallbacks: Mapping[str, str]


def branch(
    model: onnx.ModelProto, levels: Sequence[Level], element_types: Callable[[Iterable[str]], Mapping[str, int]]
) -> int:
    """Put each level, first to last, into a branch, in place; return how many nodes are put off.

    What other outputs than those of `fallbacks`, or the first level's condition and fallbacks need is always computed.
    `element_types` says what the named tensors of the graph hold, as ONNX counts types.
    """
    graph, outputs = model.graph, list(levels[0].fallbacks)
    known = needed(graph, [one.name for one in graph.output if one.name not in outputs])
    bounds = []
    for level in levels:
        known = known | needed(graph, [level.condition, *level.fallbacks.values()])
        bounds.append(known)
    bounds.append(known | needed(graph, outputs))
    early = [node for node in graph.node if not bounds[0].isdisjoint(node.output)]
    stages = [
        [node for node in graph.node if before.isdisjoint(node.output) and not after.isdisjoint(node.output)]
        for before, after in itertools.pairwise(bounds)
    ]
    crossing = [_crossing(stages[at], stages[at + 1 :]) for at in range(len(stages))]
    types = element_types({name for names in crossing for name in names})
    choices = []
    for at, (level, stage) in enumerate(zip(levels, stages, strict=True)):
        following = levels[at + 1] if at + 1 < len(levels) else None
        after = following.fallbacks if following else {name: name for name in outputs}
        otherwise = [helper.make_node("Identity", [level.fallbacks[name]], [after[name]]) for name in outputs]
        if following:
            otherwise.append(_constant(following.condition, TensorProto.BOOL, [False]))
        decided = {name for node in otherwise for name in node.output}
        otherwise += [_constant(name, types[name], []) for name in crossing[at] if name not in decided]
        choices.append(_choice(level.condition, stage, otherwise))
    del graph.node[:]
    graph.node.extend([*early, *choices])
    return sum(map(len, stages))


def _crossing(stage: Sequence[onnx.NodeProto], later: Sequence[Sequence[onnx.NodeProto]]) -> list[str]:
    """What later stages read of one."""
    read = {name for nodes in later for node in nodes for name in read_by(node)}
    return [name for node in stage for name in node.output if name in read]


def _constant(name: str, element_type: int, values: Sequence[bool]) -> onnx.NodeProto:
    """One value, or none: what stands for a tensor that is not computed, and that nothing computed reads."""
    value = helper.make_tensor(name, element_type, [] if values else [0], values)
    return helper.make_node("Constant", [], [name], value=value)


def _choice(condition: str, then: Sequence[onnx.NodeProto], otherwise: Sequence[onnx.NodeProto]) -> onnx.NodeProto:
    """The node that runs `then` or `otherwise`, which makes its outputs; inside a branch these have other names."""
    outputs = [name for node in otherwise for name in node.output]
    inside = {name: f"{name}/{condition}" for name in outputs}
    for node in then:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = inside.get(name, name)
    for node in otherwise:
        node.output[0] = inside[node.output[0]]
    values = [helper.make_empty_tensor_value_info(inside[name]) for name in outputs]
    return helper.make_node(
        "If",
        [condition],
        outputs,
        name=f"{condition}/branch",
        then_branch=helper.make_graph(then, "then", [], values),
        else_branch=helper.make_graph(otherwise, "otherwise", [], values),
    )
