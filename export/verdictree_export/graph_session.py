"""Run an exported graph during the export, as its file stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from verdictree.graph_io import OUTPUTS, feeds

Array = npt.NDArray[Any]


class GraphSession:
    """An exported graph; `initializers` take the place of the file's, `outputs` are the names of what `run` returns."""

    def __init__(
        self,
        path: Path,
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
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, input_ids: Sequence[npt.ArrayLike], prefix_ids: Sequence[Sequence[int]]) -> list[Array]:
        """The outputs for one batch of conversations."""
        return list(self._session.run(self._outputs, feeds(input_ids, prefix_ids)))
