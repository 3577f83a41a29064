"""What the machine could do: the speed of matrix products at the model's shapes, in ONNX Runtime with all cores.

Two kinds: fp32 MatMul, and MatMulInteger of uint8 activations and int8 weights. A rate is operations (two for each
multiply-add) over time, over one token's linear layers together. The ceiling of a kind is its best rate over the
numbers of rows.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.cost import LinearShape, ModelShape

ROWS = (128, 256, 512, 1024)
QUICK_ROWS = (128, 512)
KINDS = {"fp32": "fp32 MatMul", "int8": "uint8 × int8 MatMulInteger"}
_SECONDS = 0.15  # a shape and number of rows
_REPEATS = 3  # of which the fastest counts: a ceiling is what the machine reaches undisturbed


Ceilings = dict[str, dict[str, float]]


def measure(shape: ModelShape, rows: tuple[int, ...] = ROWS) -> Ceilings:
    """Giga-operations per second by kind and number of rows, and the best of them as "ceiling"."""
    return {kind: _measure_kind(kind, shape, rows) for kind in KINDS}


def best(first: Ceilings, other: Ceilings) -> Ceilings:
    """The better of two measurements, number by number: other users of a machine can only lower them."""
    return {kind: {name: max(rate, other[kind][name]) for name, rate in rates.items()} for kind, rates in first.items()}


def _measure_kind(kind: str, shape: ModelShape, rows: tuple[int, ...]) -> dict[str, float]:
    seconds = dict.fromkeys(rows, 0.0)
    for layer in shape.layers:
        session = _session(kind, layer)
        for count in rows:
            seconds[count] += layer.count * _seconds(session, kind, count, layer.inputs)
    multiplications = shape.multiplications_per_token
    rates = {str(count): 2e-9 * count * multiplications / seconds[count] for count in rows}
    return {**rates, "ceiling": max(rates.values())}


def _seconds(session: onnxruntime.InferenceSession, kind: str, rows: int, inputs: int) -> float:
    random = np.random.default_rng(0)
    shape = (rows, inputs)
    values = random.normal(size=shape).astype(np.float32) if kind == "fp32" else _bytes(random, shape)
    best = float("inf")
    for _ in range(_REPEATS):
        start, runs = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < _SECONDS / _REPEATS or runs < 2:
            session.run(None, {"x": values})
            runs += 1
        best = min(best, passed / runs)
    return best


def _bytes(random: np.random.Generator, shape: tuple[int, int]) -> Any:
    return random.integers(0, 256, size=shape, dtype=np.uint8)


def _session(kind: str, layer: LinearShape) -> onnxruntime.InferenceSession:
    random = np.random.default_rng(1)
    shape = (layer.inputs, layer.outputs)
    constants: dict[str, npt.NDArray[Any]]
    if kind == "fp32":
        constants = {"w": random.normal(size=shape).astype(np.float32)}
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        source, target = TensorProto.FLOAT, TensorProto.FLOAT
    else:
        constants = {"w": random.integers(-127, 128, size=shape, dtype=np.int8), "zero": np.array(128, np.uint8)}
        node = helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])
        source, target = TensorProto.UINT8, TensorProto.INT32
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", source, ["rows", layer.inputs])],
        [helper.make_tensor_value_info("y", target, ["rows", layer.outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), onnxruntime.SessionOptions(), providers=["CPUExecutionProvider"]
    )
