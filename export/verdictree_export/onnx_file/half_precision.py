"""A finished fp32 graph in half precision, fp16 or bf16, as a GPU computes fastest.

Half precision begins at the weights and goes on through the layers. What normalizes the answer stays fp32: the head's
product, whose logits of 32 to 64 fp16 would round to 0.03 and bf16 to 0.25, and all that follows it. bf16 has 8 bits of
precision, too few for a sum over all layers: there the residual stream and its norms are fp32 too, and what the linear
layers read is rounded. Elsewhere norms and softmax read and write half precision; providers sum them in fp32.

A CPU has no kernels for bf16, and ONNX Runtime passes over most roundings of fp16 there. So a graph is tried on a CPU
as `widened`: in fp32, with every result rounded to what the half precision can hold.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from verdictree_export.onnx_file.linear_layers import is_embedding, is_weight, read, shape
from verdictree_export.onnx_file.neighbours import readers
from verdictree_export.onnx_file.tensor_names import POLICIES

_TYPES = {ir.DataType.FLOAT16: np.dtype(np.float16), ir.DataType.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}
_CACHES = (f"{POLICIES}bank.keys_", f"{POLICIES}bank.values_")
# What is computed in half precision, and which inputs that concerns; () are all.
_MOVED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Gather", "Reshape", "Transpose", "Slice", "Split", "Expand", "Squeeze", "Unsqueeze"), (0,)),
    **dict.fromkeys(("Concat", "Identity"), ()),
}
_COMPUTED: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("MatMul", "FusedMatMul", "Add", "Sub", "Mul", "Div", "Neg", "Tanh", "Softmax", "Sigmoid"), ()),
    **dict.fromkeys(("Gelu", "QuickGelu", "FastGelu", "BiasGelu", "SimplifiedLayerNormalization"), ()),
    "RotaryEmbedding": (0, 2, 3),
}
_IN_HALF = {**_MOVED, **_COMPUTED}


def to_half(model: ir.Model, kind: ir.DataType) -> int:
    """Compute the layers of an fp32 graph in `kind`, FLOAT16 or BFLOAT16, in place; return how many nodes do."""
    narrow, wide = _Narrowed(kind), _Casts(ir.DataType.FLOAT)
    tables = {node.inputs[0] for node in model.graph if is_embedding(node)}
    caches = [one for one in model.graph.initializers.values() if (one.name or "").startswith(_CACHES)]
    half = {narrow.of(value, model.graph[0]) for value in [*caches, *tables] if value is not None}
    wide_stream = kind is ir.DataType.BFLOAT16
    vocabulary = {shape(value)[0] for value in tables if value is not None}
    for value in half:
        narrow.original[value].replace_all_uses_with(value)
    nodes = 0
    for node in list(model.graph):
        reads = [at for at, value in enumerate(node.inputs) if value in half]
        if node.op_type == "Shape" or not (reads or (wide_stream and _is_linear(node))):
            continue
        if wide_stream and is_embedding(node):
            _set_types(node, kind)
            stream = _cast(node.outputs[0], ir.DataType.FLOAT, f"{node.outputs[0].name}/stream")
            node.outputs[0].replace_all_uses_with(stream.outputs[0])
            stream.replace_input_with(0, node.outputs[0])
            node.append(stream)
            continue
        if (weight := _head_weight(node, vocabulary)) is not None:
            node.replace_input_with(1, wide.of(narrow.of(weight, node), node))
        elif node.op_type in _IN_HALF and not (wide_stream and _is_in_stream(node, half)):
            for at in _IN_HALF[node.op_type] or range(len(node.inputs)):
                if (other := node.inputs[at]) is not None and other not in half:
                    node.replace_input_with(at, narrow.of(other, node))
            _set_types(node, kind)
            half.update(node.outputs)
            nodes += 1
            continue
        for at in reads:
            if (other := node.inputs[at]) is not None:
                node.replace_input_with(at, wide.of(other, node))
    narrow.take_names(model.graph)
    return nodes


def in_precision(values: npt.NDArray[Any], like: ir.Value) -> ir.TensorProtocol:
    """A tensor of these values, in half precision where the value whose place it takes is, under that one's name."""
    kind = _TYPES.get(like.dtype) if like.dtype is not None else None
    return ir.tensor(values if kind is None else values.astype(kind), name=like.name)


def _head_weight(node: ir.Node, vocabulary: set[int]) -> ir.Value | None:
    """The weight of the head's product, with which a scale that follows may be fused; None of another node."""
    weight = _product_weight(node)
    return weight if weight is not None and vocabulary & {*shape(weight)} else None


def _product_weight(node: ir.Node) -> ir.Value | None:
    """The weight that a product multiplies with; None of another node, and of a product of activations."""
    weight = node.inputs[1] if node.op_type in ("MatMul", "FusedMatMul") else None
    return weight if is_weight(weight) else None


def _is_linear(node: ir.Node) -> bool:
    """Whether this is a product with one of the model's weights: it is in half precision, whatever it reads."""
    weight = _product_weight(node)
    return weight is not None and not (weight.name or "").startswith(POLICIES)


def _is_in_stream(node: ir.Node, half: set[ir.Value]) -> bool:
    """Whether this is a norm, or adds to the residual stream; what is added to scores masks them."""
    if node.op_type == "SimplifiedLayerNormalization":
        return True
    wide = [value for value in node.inputs if value is not None and value not in half and not value.is_initializer()]
    return (
        node.op_type == "Add" and bool(wide) and not any(one.op_type == "Softmax" for one in readers(node.outputs[0]))
    )


class _Casts:
    """Casts to one type, of each value one, before the first node that reads it."""

    def __init__(self, kind: ir.DataType) -> None:
        self._kind = kind
        self._made: dict[ir.Value, ir.Value] = {}

    def of(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        if value not in self._made:
            self._made[value] = self._new(value, reader)
        return self._made[value]

    def _new(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        cast = _cast(value, self._kind, f"{value.name}/{self._kind.name}")
        reader.prepend(cast)
        return cast.outputs[0]


class _Narrowed(_Casts):
    """Casts to half precision; of a weight it is a weight. `original` says of which."""

    def __init__(self, kind: ir.DataType) -> None:
        super().__init__(kind)
        self.original: dict[ir.Value, ir.Value] = {}

    def _new(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        if not value.is_initializer() or value.graph is None:
            return super()._new(value, reader)
        name = f"{value.name}/{self._kind.name}"
        # Read when it is written, one weight after the other.
        tensor = ir.LazyTensor(
            lambda: ir.tensor(_rounded(value, self._kind), name=name),
            dtype=self._kind,
            shape=ir.Shape(shape(value)),
            name=name,
        )
        narrowed = ir.val(name, const_value=tensor)
        value.graph.register_initializer(narrowed)
        self.original[narrowed] = value
        return narrowed

    def take_names(self, graph: ir.Graph) -> None:
        """Let each weight have the name of the one that it stands for, where nothing reads that any more."""
        for narrowed, value in self.original.items():
            if not value.uses():
                del graph.initializers[value.name or ""]
                narrowed.name = value.name


def _rounded(weight: ir.Value, kind: ir.DataType) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):  # an infinite weight is refused by what it does
        return read(weight).astype(_TYPES[kind])


def widen(model: ir.Model) -> dict[str, ir.DataType]:
    """Let a graph in half precision be computed in fp32, each result rounded; return what was in which precision."""
    found: dict[ir.Value, ir.DataType] = {}
    first = model.graph[0]
    for value in list(model.graph.initializers.values()):
        if value.dtype in _TYPES and value.dtype is not None:
            cast = _cast(value, ir.DataType.FLOAT, f"{value.name}/widened")
            value.replace_all_uses_with(cast.outputs[0])
            cast.replace_input_with(0, value)
            first.prepend(cast)
            found[cast.outputs[0]] = value.dtype
    if found:
        _widen_nodes(model.graph, found)
    return {value.name or "": kind for value, kind in found.items()}


def _widen_nodes(graph: ir.Graph, found: dict[ir.Value, ir.DataType]) -> None:
    for node in list(graph):
        kinds = [found[value] for value in node.inputs if value in found]
        if node.op_type == "If":
            for branch in (one.as_graph() for one in node.attributes.values()):
                _widen_nodes(branch, found)
                for inner, outer in zip(branch.outputs, node.outputs, strict=True):
                    if inner in found:
                        found[outer], outer.type = found[inner], ir.TensorType(ir.DataType.FLOAT)
        elif node.op_type == "Constant" and (tensor := node.attributes["value"].as_tensor()).dtype in _TYPES:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(tensor.numpy().astype(np.float32)))
            found[node.outputs[0]] = tensor.dtype
        elif node.op_type == "Cast" and (kind := ir.DataType(node.attributes["to"].as_int())) in _TYPES:
            _round(node, kind, found)
        elif kinds and node.op_type in _MOVED:
            _set_types(node, ir.DataType.FLOAT)
            found.update(dict.fromkeys(node.outputs, kinds[0]))
        elif kinds and node.op_type in _COMPUTED:
            _round(node, kinds[0], found)


def _round(node: ir.Node, kind: ir.DataType, found: dict[ir.Value, ir.DataType]) -> None:
    """Let what a node has computed, or cast to `kind`, be read under its name as fp32, rounded to `kind`."""
    result, name = node.outputs[0], node.outputs[0].name or ""
    result.name = f"{name}/exact"
    _set_types(node, ir.DataType.FLOAT if node.op_type != "Cast" else kind)
    narrow = node if node.op_type == "Cast" else _cast(result, kind, f"{name}/rounded")
    wide = _cast(narrow.outputs[0], ir.DataType.FLOAT, name)
    result.replace_all_uses_with(wide.outputs[0], replace_graph_outputs=True)
    (wide if narrow is node else narrow).replace_input_with(0, result)
    if narrow is not node:
        node.append(narrow)
    narrow.append(wide)
    found[wide.outputs[0]] = kind


def _set_types(node: ir.Node, kind: ir.DataType) -> None:
    for value in node.outputs:
        value.type = ir.TensorType(kind)


def _cast(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
    return ir.node("Cast", [value], {"to": int(kind)}, outputs=[ir.val(name)], name=f"{value.name} to {name}")
