"""Each pass: the same numbers before and after, and the change that it promises."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from verdictree_export.onnx_file.passes import (
    drop_unused,
    keep_zero_sizes,
    make_projection_shapes_constant,
    optimize,
    use_shared_weights_directly,
)

HEADS, SIZE, WIDTH = 3, 4, 12


@pytest.fixture
def model():
    """Two passes of one projection over tokens, split into heads and joined again as modelling code does it."""
    rng = np.random.default_rng(0)
    constants = {"weight": rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)}
    constants |= {name: np.array([value], dtype=np.int64) for name, value in [("infer", -1), ("size", SIZE), ("at", 0)]}
    nodes = [helper.make_node("Identity", ["weight"], ["shared"]), helper.make_node("Shape", ["x"], ["shape"])]
    nodes += [helper.make_node("Gather", ["shape", "at"], ["tokens"])]
    source = "x"
    for index, weight in enumerate(["weight", "shared"]):
        nodes += [
            helper.make_node("MatMul", [source, weight], [f"projected{index}"]),
            helper.make_node("Concat", ["tokens", "infer", "size"], [f"split{index}"], axis=0),
            helper.make_node("Reshape", [f"projected{index}", f"split{index}"], [f"heads{index}"], name=f"s{index}"),
            helper.make_node("Concat", ["tokens", "infer"], [f"join{index}"], axis=0),
            helper.make_node("Reshape", [f"heads{index}", f"join{index}"], [f"joined{index}"], name=f"j{index}"),
        ]
        source = f"joined{index}"
    nodes += [helper.make_node("MatMul", [source, "weight"], ["y"])]
    floats = (TensorProto.FLOAT, ["tokens", WIDTH])
    graph = helper.make_graph(
        nodes,
        "projections",
        [helper.make_tensor_value_info("x", *floats)],
        [helper.make_tensor_value_info("y", *floats)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def run(model, tokens):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    x = np.random.default_rng(1).standard_normal((tokens, WIDTH)).astype(np.float32)
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, {"x": x})[0]


def test_aliases_of_weights_go(model):
    """A weight that is read through an Identity is not seen as a weight by what looks for one."""
    before, count = run(model, 5), len(model.graph)
    assert use_shared_weights_directly(model) == 1
    assert len(model.graph) == count - 1
    np.testing.assert_array_equal(run(model, 5), before)


def test_reshapes_work_on_zero_tokens(model):
    """With no path live a search depth runs on nothing, and a runtime cannot infer -1 from zero elements."""
    with pytest.raises(Exception, match=r"Reshape"):
        run(model, 0)
    before = run(model, 5)
    use_shared_weights_directly(model)
    assert make_projection_shapes_constant(model) == 4
    drop_unused(model)
    assert {node.op_type for node in model.graph} == {"MatMul", "Reshape"}, "no size is computed any more"
    np.testing.assert_array_equal(run(model, 5), before)
    assert run(model, 0).shape == (0, WIDTH)


def test_what_nothing_reads_goes(model):
    """A runtime warns of every unused constant when it loads the file."""
    before, count = run(model, 5), len(model.graph)
    unread = ir.node("Identity", [model.graph.initializers["weight"]], outputs=[ir.val("unread")])
    model.graph.insert_before(model.graph[0], [unread, ir.node("Neg", unread.outputs, outputs=[ir.val("unread too")])])
    ones = ir.tensor(np.ones(3, dtype=np.float32), name="unused")
    model.graph.register_initializer(ir.val("unused", const_value=ones))
    assert drop_unused(model) == 2
    assert len(model.graph) == count and "unused" not in model.graph.initializers
    np.testing.assert_array_equal(run(model, 5), before)


def reshape_to_computed_sizes():
    """(slots, 4) → (1, slots, 1, 4), where the number of slots is computed."""
    nodes = [
        helper.make_node("Shape", ["x"], ["slots"], start=0, end=1),
        helper.make_node("Concat", ["one", "slots", "one", "size"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    floats = (TensorProto.FLOAT, ["slots", SIZE])
    graph = helper.make_graph(
        nodes,
        "slots",
        [helper.make_tensor_value_info("x", *floats)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.array([n], dtype=np.int64), name) for name, n in [("one", 1), ("size", SIZE)]],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def run_slots(model, slots):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it would fuse the shape
    x = np.arange(slots * SIZE, dtype=np.float32).reshape(slots, SIZE)
    return onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(None, {"x": x})[0]


def test_a_computed_size_of_zero_stays_zero():
    """A reshape reads zero as "the input's size": with no path live the table of slots would not fit its shape."""
    model = reshape_to_computed_sizes()
    with pytest.raises(Exception, match=r"Reshape"):
        run_slots(model, 0)
    before, count = run_slots(model, 3), len(model.graph)
    assert keep_zero_sizes(model) == 1
    assert len(model.graph) == count
    np.testing.assert_array_equal(run_slots(model, 3), before)
    assert run_slots(model, 0).shape == (1, 0, 1, SIZE)


def test_optimizing_keeps_the_numbers(model, tmp_path):
    """The file that is shipped is the optimized one; it must be the same function, in fewer nodes."""
    use_shared_weights_directly(model)
    make_projection_shapes_constant(model)
    before, traced, path = run(model, 5), tmp_path / "traced.onnx", tmp_path / "model.onnx"
    ir.save(model, traced)
    optimize(traced, path, "weights.bin")
    optimized = ir.from_proto(onnx.load(path))
    assert len(optimized.graph) <= len(model.graph)
    assert {one.name for one in tmp_path.iterdir()} - {"weights.bin"} == {"traced.onnx", "model.onnx"}
    np.testing.assert_allclose(run(optimized, 5), before, rtol=1e-6)
