"""Rotary position embedding (arXiv 2104.09864) as one operator of ONNX Runtime, in place of the eight that are traced.

Modelling code computes for the halves x₁, x₂ of each head, with cos and sin whose halves are equal,

    x · cos + (−x₂, x₁) · sin

and a runtime walks over all queries and keys once for each of slice, negation, join, product and sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from verdictree_export.onnx_file.neighbours import CONTRIB, inputs, replace, source

_FIRST_AXIS, _FROM_THE_FIRST = "rotary/first_axis", "rotary/from_the_first"


class _Rotary(NamedTuple):
    """The tensors that a rotary embedding is computed from: x (1, heads, tokens, head size), cos and sin."""

    x: ir.Value
    cos: ir.Value
    sin: ir.Value


def fuse_rotary(model: ir.Model) -> int:
    """Replace each rotary embedding of whole heads in place; return how many. Other kinds are left as they are."""
    embeddings = [(node, rotary) for node in model.graph if (rotary := _find(node)) is not None]
    if not embeddings:
        return 0
    zero = np.zeros(1, dtype=np.int64)
    constants = [ir.val(name, const_value=ir.tensor(zero, name=name)) for name in (_FIRST_AXIS, _FROM_THE_FIRST)]
    for constant in constants:
        model.graph.register_initializer(constant)
    model.graph.opset_imports.setdefault(CONTRIB, 1)
    first_axis, from_the_first = constants
    halves: dict[ir.Value, ir.Value] = {}
    for node, (x, cos, sin) in embeddings:
        for angles in (cos, sin):
            if angles not in halves:
                halves[angles] = _half(angles, first_axis, node)
        # Row i of cos and sin belongs to packed token i, so "positions" count the rows, from the first.
        operands = [x, from_the_first, halves[cos], halves[sin]]
        fused = ir.node("RotaryEmbedding", operands, outputs=[ir.val(node.name)], name=node.name, domain=CONTRIB)
        node.prepend(fused)
        replace(node, fused.outputs[0])
    return len(embeddings)


def _half(angles: ir.Value, first_axis: ir.Value, before: ir.Node) -> ir.Value:
    """The first half of cos or sin (1, tokens, head size), as (tokens, head size / 2)."""
    rows, half, other = (ir.val(f"{angles.name}/{name}") for name in ("rows", "half", "other_half"))
    split = {"axis": 1, "num_outputs": 2}
    before.prepend(ir.node("Squeeze", [angles, first_axis], outputs=[rows], name=rows.name))
    before.prepend(ir.node("Split", [rows], split, outputs=[half, other], name=half.name))
    return half


def _find(node: ir.Node) -> _Rotary | None:
    """What the sum `node` is the rotary embedding of."""
    straight, turned = source(node, 0), source(node, 1)
    if node.op_type != "Add" or straight is None or turned is None or {straight.op_type, turned.op_type} != {"Mul"}:
        return None
    (x, cos), (turn, sin) = inputs(straight), inputs(turned)
    joined, factors = turn.producer(), [cos.producer(), sin.producer()]
    if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
        return None
    negation, first = source(joined, 0), source(joined, 1)
    if (
        negation is None
        or negation.op_type != "Neg"
        or _sliced(first) is not x
        or _sliced(source(negation, 0)) is not x
    ):
        return None
    broadcast = [inputs(one)[0] for one in factors if one is not None and one.op_type == "Unsqueeze"]
    return _Rotary(x, *broadcast) if len(broadcast) == 2 else None


def _sliced(node: ir.Node | None) -> ir.Value | None:
    return inputs(node)[0] if node is not None and node.op_type == "Slice" else None
