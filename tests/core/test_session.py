"""int8 releases on every processor."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from verdictree.runtime import processor
from verdictree.runtime.session import INTEGER_PRODUCT, open_session

TOKENS, SIZE, CHANNELS = 3, 64, 32
LARGEST = 255  # of uint8; with int8's 127 in all products, sums of two overflow 16 bits


@pytest.fixture
def weight():
    return np.random.default_rng(0).choice(np.array([-127, 90, 127], np.int8), (SIZE, CHANNELS))


@pytest.fixture(params=[0, 10**6], ids=["weights in a file beside the graph", "weights in the graph's file"])
def graph(request, tmp_path, weight):
    """y = (x − 128) · weight, once at the top and once within a branch, as the depths of the search are."""

    def product(output):
        return helper.make_node(
            INTEGER_PRODUCT, ["x", "weight", "one", "scales", "middle"], [output], domain="com.microsoft"
        )

    def branch(name, *nodes):
        return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(nodes[-1].output[0])])

    twice = branch("then", product("again"), helper.make_node("Add", ["y", "again"], ["twice"]))
    nodes = [
        product("y"),
        helper.make_node("If", ["condition"], ["z"], then_branch=twice, else_branch=branch("else", product("once"))),
    ]
    constants = {
        "weight": weight,
        "one": np.float32(1),
        "scales": np.ones(CHANNELS, np.float32),
        "middle": np.uint8(128),
    }
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "products",
            [
                helper.make_tensor_value_info("x", TensorProto.UINT8, [TOKENS, SIZE]),
                helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [TOKENS, CHANNELS]) for name in "yz"],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=9,
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=request.param)
    return path


def run(session):
    x = np.full((TOKENS, SIZE), LARGEST, np.uint8)
    return session.run(["y", "z"], {"x": x, "condition": np.array(True)})


@pytest.mark.parametrize("unsigned", [None, True], ids=["this processor", "one without VNNI"])
def test_integer_products_are_exact(graph, weight, monkeypatch, unsigned):
    """Sums that are cut to 16 bits change verdicts on other processors than the one that the release was judged on."""
    if unsigned is not None:
        monkeypatch.setattr(processor, "saturates", lambda: unsigned)
    files = {path: path.read_bytes() for path in graph.parent.iterdir()}
    y, z = run(open_session(graph, onnxruntime.SessionOptions()))
    expected = np.tile((LARGEST - 128) * weight.astype(int).sum(axis=0), (TOKENS, 1))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(z, 2 * expected)
    assert {path: path.read_bytes() for path in graph.parent.iterdir()} == files, "a release is never written to"


def test_saturation_is_known(graph, weight):
    """A processor that is wrongly taken for an exact one answers otherwise, without a word."""
    y, _ = run(onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]))
    exact = np.array_equal(y[0], (LARGEST - 128) * weight.astype(int).sum(axis=0))
    assert exact or processor.saturates()
