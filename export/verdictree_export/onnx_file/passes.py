"""What is done to the ONNX graph after tracing. No pass changes what the graph computes.

A pass is a function that changes a graph in place and returns how many changes it made: of nodes, mostly. Each list
stands in the order in which its passes are applied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import RemoveUnusedNodesPass

from verdictree_export.onnx_file.linear_layers import shape
from verdictree_export.onnx_file.neighbours import inputs, source
from verdictree_export.onnx_file.rotary import fuse_rotary

Pass = Callable[[ir.Model], int]


def apply(passes: Iterable[Pass], model: ir.Model) -> None:
    """Let all passes change `model`, in order."""
    for one in passes:
        one(model)


def use_shared_weights_directly(model: ir.Model) -> int:
    """Let every node read its weights from the initializer itself; return how many aliases were removed.

    The exporter hands a weight that several passes share to all but the first of them through an Identity node. Other
    Identity nodes stay: some of them give an output its name.
    """
    aliases = [
        node
        for node in model.graph
        if node.op_type == "Identity" and inputs(node)[0].is_initializer() and not node.outputs[0].is_graph_output()
    ]
    for alias in aliases:
        alias.outputs[0].replace_all_uses_with(inputs(alias)[0])
        model.graph.remove(alias, safe=True)
    return len(aliases)


def make_projection_shapes_constant(model: ir.Model) -> int:
    """Write out the shapes of reshapes beside a projection; return how many were.

    Modelling code splits projected states with `view(*leading, -1, head_size)` and joins them with
    `reshape(*leading, -1)`, the leading sizes being those of what is reshaped. A runtime infers -1 from the number of
    elements, which fails for zero tokens: a search depth at which no path is live. The weights that feed or follow the
    reshape say the number. A leading size becomes 0, "as in the input", so nothing is left to compute in any layer.
    """
    count = 0
    for node in _reshapes_to_joined_sizes(model):
        width = _projection_width(node)
        parts = ([0] if (known := _integers(value)) is None else known for value in _sizes(node))
        sizes = list(itertools.chain.from_iterable(parts))
        if width is None or sizes.count(-1) != 1:
            continue
        inferred = sizes.index(-1)
        if 0 in sizes[inferred:]:  # a size that is no leading one
            continue
        sizes[inferred] = width // math.prod(sizes[inferred + 1 :])
        node.attributes.clear()  # a zero copies
        name = f"{node.name}/shape"
        constant = ir.val(name, const_value=ir.tensor(np.array(sizes, dtype=np.int64), name=name))
        model.graph.register_initializer(constant)
        node.replace_input_with(1, constant)
        count += 1
    return count


def keep_zero_sizes(model: ir.Model) -> int:
    """Let a size of zero in a reshape's shape mean zero; return how many reshapes were changed.

    By default a zero there means "as in the input". The exporter leaves that default where a size is computed, and
    with no path live computed sizes are zero. A shape with an inferred or a copied size is left as it is.
    """
    count = 0
    for node in _reshapes_to_joined_sizes(model):
        known = {size for value in _sizes(node) for size in _integers(value) or ()}
        if known.isdisjoint({-1, 0}):
            node.attributes.clear()
            node.attributes.add(ir.AttrInt64("allowzero", 1))
            count += 1
    return count


def drop_unused(model: ir.Model) -> int:
    """Drop nodes and initializers that nothing reads; return how many nodes went."""
    before = len(model.graph)
    RemoveUnusedNodesPass()(model)
    return before - len(model.graph)


def drop_unread_weights(model: ir.Model) -> int:
    """Drop initializers that no node reads, and no node; return how many.

    Before the branches are made nothing reads the conditions that they will have, so `drop_unused` would drop those.
    """
    initializers = model.graph.initializers
    unread = [value for value in initializers.values() if not value.uses()]
    for value in unread:
        del initializers[value.name or ""]
    return len(unread)


AFTER_TRACING: tuple[Pass, ...] = (
    use_shared_weights_directly,  # first, since the others look at what a node reads for weights
    make_projection_shapes_constant,  # a size cannot be inferred from no elements
    keep_zero_sizes,  # what is still computed is zero where no path is live
    fuse_rotary,  # one walk over queries and keys in place of five
    drop_unused,  # what the others have made superfluous
)


def _reshapes_to_joined_sizes(model: ir.Model) -> list[ir.Node]:
    """Those whose shape is joined from sizes, some of them computed."""
    reshapes = [node for node in model.graph if node.op_type == "Reshape"]
    return [node for node in reshapes if (shape := source(node, 1)) is not None and shape.op_type == "Concat"]


def _sizes(reshape: ir.Node) -> list[ir.Value]:
    joined = source(reshape, 1)
    return inputs(joined) if joined is not None else []


def _integers(value: ir.Value) -> list[int] | None:
    """A constant list of integers; none where it is computed, or something else."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.INT64 or len(tensor.shape) != 1:
        return None
    return [int(size) for size in tensor.numpy()]


def _projection_width(node: ir.Node) -> int | None:
    """The number of features on the last axis of what the reshape takes from, or hands to, a projection."""
    before, after = source(node, 0), node.outputs[0].consumers()
    if before is not None and before.op_type == "Add":  # the projection's bias
        before = next((made for at in (0, 1) if (made := source(before, at)) is not None), None)
    if before is not None and before.op_type == "MatMul" and inputs(before)[1].is_initializer():
        return shape(inputs(before)[1])[1]
    target = after[-1] if after else None
    if target is not None and target.op_type == "MatMul" and inputs(target)[1].is_initializer():
        return shape(inputs(target)[1])[0]
    return None


def optimize(source: Path, target: Path, weights: str) -> None:
    """Write the ONNX file `source` as `target`, with constants folded and normalizations fused by ONNX Runtime.

    What is left are standard operators and ONNX Runtime's own. Done once here, since a server would do it at every
    start: it is most of the time that loading takes. The weights go into a file of this name beside `target`.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", weights)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.add_session_config_entry("session.disable_prepacking", "1")  # nothing is run, and it copies the weights
    options.log_severity_level = 3  # it warns of every constant that it folds away
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
