"""What flows into the linear layers on calibration conversations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from verdictree_export.onnx_file.graph_session import GraphSession
from verdictree_export.onnx_file.linear_layers import linear_layers
from verdictree_export.onnx_file.neighbours import inputs

Feed = Mapping[str, npt.NDArray[np.generic]]


@dataclass
class Activations:
    """Of all tokens x (K,) that a weight (K, N) met, in whatever pass: max |x_k| (K,) and Σ xxᵀ (K, K)."""

    maximum: npt.NDArray[np.float32]
    second_moment: npt.NDArray[np.float32]


def calibrate(graph: Path, feeds: Iterable[Feed]) -> dict[str, Activations]:
    """Run the floating-point graph on `feeds` (its inputs, a batch each); activations by the weight's name.

    A weight that met no token is missing. A copy of the graph's file without its weights stands beside it meanwhile.
    """
    model = ir.load(graph)
    weights_of: dict[ir.Value, list[str]] = {}
    for node in linear_layers(model):
        activations, weight = inputs(node)
        weights_of.setdefault(activations, []).append(weight.name or "")
    model.graph.outputs.extend(value for value in weights_of if not value.is_graph_output())
    with_outputs = graph.with_name("with_outputs.onnx")
    ir.save(model, with_outputs)
    names = [value.name or "" for value in weights_of]
    session = GraphSession(with_outputs, outputs=names, prepack=True)
    with_outputs.unlink()
    moments: dict[tuple[str, ...], Activations] = {}
    for feed in feeds:
        for weights, tokens in zip(weights_of.values(), session.run(feed), strict=True):
            _accumulate(moments, tuple(weights), tokens.reshape(-1, tokens.shape[-1]))
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
