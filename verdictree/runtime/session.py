"""Open a release's graph in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from verdictree.errors import GpuUnavailable
from verdictree.runtime import cuda, processor

INTEGER_PRODUCT = "MatMulIntegerToFloat"  # the operator of int8 releases, uint8 activations × int8 weights


def open_session(
    graph: Path, options: onnxruntime.SessionOptions, providers: Sequence[Any] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """The graph's session, which runs on the first of `providers`, and whose integer products are exact everywhere.

    Raises ONNX Runtime's errors, and GpuUnavailable where it would run on the CPU instead.

    Where uint8 × int8 is not exact, the session is of a copy with uint8 weights, which lasts until it is loaded. (ONNX
    Runtime's own option, `session.x64quantprecision`, fails on weights that several products share, and passes over
    branches.)
    """
    if not (processor.saturates() and INTEGER_PRODUCT.encode() in graph.read_bytes()):
        return _started(graph, options, providers)
    from verdictree.runtime import unsigned_weights  # with onnx, which nothing else of a server needs

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps what is mapped
        copy = unsigned_weights.copy(graph, Path(folder))
        return _started(copy, options, providers)


def _started(
    graph: Path, options: onnxruntime.SessionOptions, providers: Sequence[Any]
) -> onnxruntime.InferenceSession:
    names = [one if isinstance(one, str) else one[0] for one in providers]
    if cuda.PROVIDER in names:
        cuda.require_cuda()
    # Without the fallback: ONNX Runtime would go on with the CPU, here or at the first run that fails.
    session = onnxruntime.InferenceSession(graph, options, providers=list(providers), enable_fallback=0)
    if names[0] not in session.get_providers():
        raise GpuUnavailable(f"expected {names[0]} to start, got {session.get_providers()}; see ONNX Runtime's log")
    return session
