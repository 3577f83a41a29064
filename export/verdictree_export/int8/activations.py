"""What flows into the linear layers on calibration conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from verdictree_export.onnx_file.graph_index import GraphIndex
from verdictree_export.onnx_file.graph_session import GraphSession

Feed = Mapping[str, npt.NDArray[np.generic]]


@dataclass
class Activations:
    """Of all tokens x (K,) that a weight (K, N) met, in whatever pass: max |x_k| (K,) and Σ xxᵀ (K, K)."""

    maximum: npt.NDArray[np.float32]
    second_moment: npt.NDArray[np.float32]


def calibrate(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, Activations]:
    """Run the floating-point graph on `feeds` (its inputs, a batch each); activations by the weight's name.

    A weight that met no token is missing. The model is serialized in memory, so it has to be smaller than 2 GiB.
    """
    layers = GraphIndex(model).linear_layers()
    inputs = list(dict.fromkeys(node.input[0] for node in layers))
    session = GraphSession(_with_outputs(model, inputs), outputs=inputs, prepack=True)
    moments: dict[tuple[str, ...], Activations] = {}
    weights_of = {name: tuple(node.input[1] for node in layers if node.input[0] == name) for name in inputs}
    for feed in feeds:
        for name, value in zip(inputs, session.run(feed), strict=True):
            _accumulate(moments, weights_of[name], value.reshape(-1, value.shape[-1]))
    return {weight: found for weights, found in moments.items() for weight in weights}


def _accumulate(
    moments: dict[tuple[str, ...], Activations], weights: tuple[str, ...], tokens: npt.NDArray[np.float32]
) -> None:
    if not len(tokens):
        return
    maximum, second_moment = np.abs(tokens).max(axis=0), tokens.T @ tokens
    if weights in moments:
        known = moments[weights]
        known.maximum = np.maximum(known.maximum, maximum)
        known.second_moment += second_moment
    else:
        moments[weights] = Activations(maximum, second_moment)


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> bytes:
    count = len(model.graph.output)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    try:
        return bytes(model.SerializeToString())
    finally:
        del model.graph.output[count:]
