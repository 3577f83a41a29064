"""Run an exported graph during the export, as its file stands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto

from verdictree.runtime.graph_io import OUTPUTS
from verdictree.runtime.session import open_session
from verdictree_export.onnx_file.half_precision import widen

Array = npt.NDArray[Any]

_ELEMENT_TYPES = {
    "tensor(bool)": TensorProto.BOOL,
    "tensor(int32)": TensorProto.INT32,
    "tensor(int64)": TensorProto.INT64,
    "tensor(float)": TensorProto.FLOAT,
}


class GraphSession:
    """An exported graph, on the CPU; one in half precision is `half_precision.widen`ed.

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
        with _for_a_cpu(graph) as (path, self._half):
            self._session = open_session(path, options)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The outputs for one batch, of which `feeds` are the inputs; see `graph_io.feeds`."""
        return list(self._session.run(self._outputs, dict(feeds)))

    def element_types(self) -> dict[str, int]:
        """What each output of the graph holds, as ONNX counts types."""
        return {one.name: self._half.get(one.name, _ELEMENT_TYPES[one.type]) for one in self._session.get_outputs()}


@contextmanager
def _for_a_cpu(graph: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """The graph's file, or a widened one beside its weights for a while; and what is in half precision."""
    model = ir.load(graph)
    half = {name: int(kind) for name, kind in widen(model).items()}
    if not half:
        yield graph, half
        return
    with tempfile.NamedTemporaryFile(dir=graph.parent, suffix=".onnx") as file:
        ir.save(model, file.name)
        yield Path(file.name), half
