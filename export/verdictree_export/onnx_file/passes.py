"""What is done to the ONNX graph after tracing. No pass changes what the graph computes."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from verdictree_export.onnx_file.graph_index import needed


def use_shared_weights_directly(model: onnx.ModelProto) -> int:
    """Let every node read its weights from the initializer itself; return how many aliases were removed.

    The exporter hands a weight that several passes share to all but the first of them through an Identity node.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    aliases = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and node.input[0] in initializers
    }
    kept = [node for node in model.graph.node if node.output[0] not in aliases]
    for node in kept:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return len(aliases)


def make_projection_shapes_constant(model: onnx.ModelProto) -> int:
    """Write out the shapes of reshapes beside a projection; return how many were.

    Modelling code splits projected states with `view(*leading, -1, head_size)` and joins them with
    `reshape(*leading, -1)`, the leading sizes being those of what is reshaped. A runtime infers -1 from the number of
    elements, which fails for zero tokens: a search depth at which no path is live. The weights that feed or follow the
    reshape say the number. A leading size becomes 0, "as in the input", so nothing is left to compute in any layer.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    consumers: dict[str, onnx.NodeProto] = {name: node for node in model.graph.node for name in node.input}
    constants = _integer_constants(model)
    count = 0
    for node in [node for node in model.graph.node if node.op_type == "Reshape"]:
        shape = producers.get(node.input[1])
        width = _projection_width(node, tensors, producers, consumers)
        if shape is None or shape.op_type != "Concat" or width is None:
            continue
        sizes = list(itertools.chain.from_iterable(constants.get(name, [0]) for name in shape.input))
        if sizes.count(-1) != 1:
            continue
        inferred = sizes.index(-1)
        if 0 in sizes[inferred:]:  # a size that is no leading one
            continue
        sizes[inferred] = width // math.prod(sizes[inferred + 1 :])
        del node.attribute[:]  # a zero copies
        node.input[1] = f"{node.name}/shape"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes, dtype=np.int64), node.input[1]))
        count += 1
    return count


def keep_zero_sizes(model: onnx.ModelProto) -> int:
    """Let a size of zero in a reshape's shape mean zero; return how many reshapes were changed.

    By default a zero there means "as in the input". The exporter leaves that default where a size is computed, and
    with no path live computed sizes are zero. A shape with an inferred or a copied size is left as it is.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = _integer_constants(model)
    count = 0
    for node in [node for node in model.graph.node if node.op_type == "Reshape"]:
        shape = producers.get(node.input[1])
        if shape is None or shape.op_type != "Concat":
            continue
        known = {size for name in shape.input for size in constants.get(name, ())}
        if known.isdisjoint({-1, 0}):
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("allowzero", 1))
            count += 1
    return count


def drop_unused(model: onnx.ModelProto) -> int:
    """Drop nodes and initializers that nothing reads; return how many nodes went."""
    read = needed(model.graph, [one.name for one in model.graph.output])
    kept = [node for node in model.graph.node if not read.isdisjoint(node.output)]
    count = len(model.graph.node) - len(kept)
    weights = [one for one in model.graph.initializer if one.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(weights)
    return count


def _integer_constants(model: onnx.ModelProto) -> dict[str, list[int]]:
    values = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    values |= {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        name: onnx.numpy_helper.to_array(tensor).tolist()
        for name, tensor in values.items()
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1
    }


def _projection_width(
    node: onnx.NodeProto,
    tensors: dict[str, onnx.TensorProto],
    producers: dict[str, onnx.NodeProto],
    consumers: dict[str, onnx.NodeProto],
) -> int | None:
    """The number of features on the last axis of what the reshape takes from, or hands to, a projection."""
    source, target = producers.get(node.input[0]), consumers.get(node.output[0])
    if source is not None and source.op_type == "Add":  # the projection's bias
        source = next((producers[name] for name in source.input if name in producers), None)
    if source is not None and source.op_type == "MatMul" and source.input[1] in tensors:
        return int(tensors[source.input[1]].dims[1])
    if target is not None and target.op_type == "MatMul" and target.input[1] in tensors:
        return int(tensors[target.input[1]].dims[0])
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
