"""Run an exported graph during the export, as its file stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime
from onnx import TensorProto

from verdictree.runtime.graph_io import OUTPUTS
from verdictree.runtime.session import open_session

Array = npt.NDArray[Any]

_ELEMENT_TYPES = {
    "tensor(bool)": TensorProto.BOOL,
    "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64,
    "tensor(float16)": TensorProto.FLOAT16,
    "tensor(float)": TensorProto.FLOAT,
}


class GraphSession:
    """An exported graph.

    `initializers` take the place of the file's, `outputs` are the names of what `run` returns.
    """

    def __init__(
        self,
        graph: Path,
        initializers: Mapping[str, Array] | None = None,
        outputs: Sequence[str] = OUTPUTS,
        prepack: bool = False,
    ) -> None:
        """`prepack` runs faster, at the price of a copy of the weights."""
        self._outputs = list(outputs)
        self._values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in (initializers or {}).items()
        }
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # the file is optimized
        options.add_session_config_entry("session.disable_prepacking", str(int(not prepack)))
        for name, value in self._values.items():
            options.add_initializer(name, value)
        self._session = open_session(graph, options)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one batch, of which `feeds` are the inputs; see `graph_io.feeds`."""
        return list(self._session.run(self._outputs, dict(feeds)))

    def element_types(self) -> dict[str, int]:
        """What each output of the graph holds, as ONNX counts types."""
        return {one.name: _ELEMENT_TYPES[one.type] for one in self._session.get_outputs()}
