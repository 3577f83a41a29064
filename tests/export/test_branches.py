"""Search depths in branches: the same numbers, and nothing computed that is not wanted."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from verdictree_export.onnx_file.branches import Stage, branch

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
    depths = [Stage("any_0", {"y": "minus"}), Stage("any_1", {"y": "twice"})]
    assert branch(model, depths, lambda names: dict.fromkeys(names, TensorProto.FLOAT)) == 5
    assert [node.op_type for node in model.graph.node] == ["ReduceMax", "Greater", "Neg", "If", "If"]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.array([1, 2, 3, 4], dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], -2 * x.reshape(2, 2))
    np.testing.assert_array_equal(session.run(None, {"x": 2 * x})[0], 8 * x.reshape(2, 2) ** 2)
    # Three numbers are no square: had the first depth been computed, the run would fail.
    np.testing.assert_array_equal(session.run(None, {"x": -x[:3]})[0], x[:3])
