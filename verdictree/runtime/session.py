"""Open a release's graph in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from verdictree.runtime import processor

INTEGER_PRODUCT = "MatMulIntegerToFloat"  # the operator of int8 releases, uint8 activations × int8 weights


def open_session(
    graph: Path, options: onnxruntime.SessionOptions, providers: Sequence[Any] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """The graph's session, whose integer products are exact on every processor; raises ONNX Runtime's errors.

    Where uint8 × int8 is not exact, the session is of a copy with uint8 weights, which lasts until it is loaded. (ONNX
    Runtime's own option, `session.x64quantprecision`, fails on weights that several products share, and passes over
    branches.)
    """
    if not (processor.saturates() and INTEGER_PRODUCT.encode() in graph.read_bytes()):
        return onnxruntime.InferenceSession(graph, options, providers=list(providers))
    from verdictree.runtime import unsigned_weights  # with onnx, which nothing else of a server needs

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps what is mapped
        copy = unsigned_weights.copy(graph, Path(folder))
        return onnxruntime.InferenceSession(copy, options, providers=list(providers))
