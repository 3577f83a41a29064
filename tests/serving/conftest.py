"""A toy model repository: an ensemble of a Python step and a ragged ONNX step that adds up each request's ids."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def ragged_sum_model() -> onnx.ModelProto:
    """Return a graph of ``ids`` [ids of all requests] and ``offsets`` [requests + 1] with each request's sum.

    An id above 255 is outside the graph's table, so it makes the whole run fail. ``batch_size`` tells how many
    requests shared the run.
    """
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["values"]),
        helper.make_node("CumSum", ["values", "first_axis"], ["sums"]),
        helper.make_node("Concat", ["zero", "sums"], ["sums_from_zero"], axis=0),
        helper.make_node("Gather", ["sums_from_zero", "offsets"], ["borders"]),
        helper.make_node("Slice", ["borders", "one", "end"], ["upper"]),
        helper.make_node("Slice", ["borders", "zero", "minus_one"], ["lower"]),
        helper.make_node("Sub", ["upper", "lower"], ["flat_total"]),
        helper.make_node("Unsqueeze", ["flat_total", "one"], ["total"]),
        helper.make_node("Shape", ["flat_total"], ["requests"]),
        helper.make_node("Shape", ["total"], ["total_shape"]),
        helper.make_node("Expand", ["requests", "total_shape"], ["batch_size"]),
    ]
    constants = {
        "table": np.arange(256),
        "first_axis": np.array(0),
        "zero": np.array([0]),
        "one": np.array([1]),
        "end": np.array([2**31]),
        "minus_one": np.array([-1]),
    }
    return _model(
        nodes,
        inputs=[("ids", TensorProto.INT64, ["n"]), ("offsets", TensorProto.INT32, ["m"])],
        outputs=[("total", TensorProto.INT64, ["b", 1]), ("batch_size", TensorProto.INT64, ["b", 1])],
        constants=constants,
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[tuple[str, int, list[str | int]]],
    outputs: list[tuple[str, int, list[str | int]]],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(value.astype(np.int64), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="session")
def ragged_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's version directory with the ragged sum's graph."""
    directory = tmp_path_factory.mktemp("ragged")
    onnx.save(ragged_sum_model(), directory / "model.onnx")
    return directory


@pytest.fixture(scope="session")
def dense_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version directory whose graph doubles ``x`` [batch, width], any width."""
    directory = tmp_path_factory.mktemp("dense")
    shape: list[str | int] = ["batch", "width"]
    double = helper.make_node("Add", ["x", "x"], ["y"])
    model = _model([double], [("x", TensorProto.FLOAT, shape)], [("y", TensorProto.FLOAT, shape)], {})
    onnx.save(model, directory / "model.onnx")
    return directory


@pytest.fixture
def toy_repository(tmp_path: Path, ragged_version: Path) -> Path:
    """A private copy of the toy repository that a test may damage."""
    return copy_toy_repository(tmp_path / "models", ragged_version)


@pytest.fixture(scope="session")
def shared_toy_repository(tmp_path_factory: pytest.TempPathFactory, ragged_version: Path) -> Path:
    """The toy repository for tests that leave it as it is."""
    return copy_toy_repository(tmp_path_factory.mktemp("toy") / "models", ragged_version)


def copy_toy_repository(target: Path, ragged_version: Path) -> Path:
    shutil.copytree(Path(__file__).parent / "toy_repository", target)
    shutil.copy2(ragged_version / "model.onnx", target / "toy_lm" / "1")
    return target
