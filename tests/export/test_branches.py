"""Search depths in branches: the same numbers, and nothing computed that is not wanted."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from verdictree_export.onnx_file.branches import SearchDepth, branch

FLOATS = (TensorProto.FLOAT, None)


def branching_model():
    """-x; as a square and added to itself if any x > 0; that times -x once more if any x > 5."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["any_0"]),
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Reshape", ["minus", "square"], ["table"]),
        helper.make_node("Add", ["table", "table"], ["twice"]),
        helper.make_node("ReduceMin", ["table"], ["least"], keepdims=0),
        helper.make_node("Less", ["least", "minus_five"], ["any_1"]),
        helper.make_node("Mul", ["twice", "table"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, dtype=np.float32),
        "minus_five": np.array(-5, dtype=np.float32),
        "square": np.array([2, 2], dtype=np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "depths",
        [helper.make_tensor_value_info("x", *FLOATS)],
        [helper.make_tensor_value_info("y", *FLOATS)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def model():
    return branching_model()


def test_a_depth_is_computed_only_where_it_is_wanted(model):
    """What is put off must be the same where it is wanted, and not be computed where it is not."""
    depths = [SearchDepth("any_0", {"y": "minus"}), SearchDepth("any_1", {"y": "twice"})]
    assert branch(model, depths, lambda names: dict.fromkeys(names, TensorProto.FLOAT)) == 5
    assert [node.op_type for node in model.graph.node] == ["ReduceMax", "Greater", "Neg", "If", "If"]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.array([1, 2, 3, 4], dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], -2 * x.reshape(2, 2))
    np.testing.assert_array_equal(session.run(None, {"x": 2 * x})[0], 8 * x.reshape(2, 2) ** 2)
    # Three numbers are no square: had the first depth been computed, the run would fail.
    np.testing.assert_array_equal(session.run(None, {"x": -x[:3]})[0], x[:3])


def measured_model():
    """The numbers of x above 0, twice if there are any; those of them above 5, in as many columns, if there are any."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Compress", ["x", "positive"], ["kept"], axis=0),
        helper.make_node("Shape", ["kept"], ["size"]),
        helper.make_node("Gather", ["size", "first"], ["count"]),
        helper.make_node("Greater", ["count", "first"], ["any_0"]),
        helper.make_node("Add", ["kept", "kept"], ["twice"]),
        helper.make_node("Greater", ["kept", "five"], ["large"]),
        helper.make_node("Compress", ["kept", "large"], ["larger"], axis=0),
        helper.make_node("Shape", ["larger"], ["larger_size"]),
        helper.make_node("Gather", ["larger_size", "first"], ["larger_count"]),
        helper.make_node("Greater", ["larger_count", "first"], ["any_1"]),
        helper.make_node("Concat", ["size", "larger_size"], ["table_size"], axis=0),
        helper.make_node("Expand", ["larger", "table_size"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, dtype=np.float32),
        "five": np.array(5, dtype=np.float32),
        "first": np.array(0, dtype=np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", *FLOATS)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_no_size_leaves_a_branch():
    """Under CUDA a size from outside a branch lies on the device: each reshape in each layer would wait for a copy."""
    model = measured_model()
    depths = [SearchDepth("any_0", {"y": "x"}), SearchDepth("any_1", {"y": "twice"})]
    branch(model, depths, lambda names: dict.fromkeys(names, TensorProto.FLOAT))
    choices = [node for node in model.graph.node if node.op_type == "If"]
    assert [set(choice.output) for choice in choices] == [{"twice", "larger"}, {"y"}]
    then = {one.name: one.g for one in choices[1].attribute}["then_branch"]
    made = {name for node in then.node for name in node.output}
    read = {name for node in then.node for name in node.input} - made
    assert read == {"kept", "larger"}, "the tensors themselves, whose shapes are read inside"
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for x, expected in (([-1, -2], [-1, -2]), ([1, 2, -3], [2, 4]), ([1, 6, 7], [[6, 7]] * 3)):
        np.testing.assert_array_equal(session.run(None, {"x": np.array(x, dtype=np.float32)})[0], expected)
