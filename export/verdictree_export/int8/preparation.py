"""Make an fp32 graph easy to quantize, without changing its function.

The graph goes from file to file. A session of it in memory would need the whole model in one message, which protobuf
limits to 2 GiB; from a file each weight is mapped, and read when it is its turn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from verdictree_export.int8.activations import Activations, Feed, calibrate
from verdictree_export.int8.passes import BEFORE_CALIBRATION, after_calibration
from verdictree_export.onnx_file.onnx_model import save
from verdictree_export.onnx_file.passes import apply


def prepare(graph: Path, prepared: Path, feeds: Iterable[Feed]) -> dict[str, Activations]:
    """Write an optimized fp32 graph as the file `prepared`, in another folder; what its layers meet.

    Rotates the residual stream and smooths the inputs of down projections where the architecture allows it. `feeds`
    are the graph's inputs for calibration conversations, a batch each.
    """
    model = ir.load(graph)
    apply(BEFORE_CALIBRATION, model)
    with tempfile.TemporaryDirectory(dir=prepared.parent) as scratch:
        rotated = Path(scratch) / graph.name
        save(model, rotated)
        del model  # and with it the weights that were changed
        statistics = calibrate(rotated, feeds)
        model = ir.load(rotated)
        apply(after_calibration(statistics), model)
        save(model, prepared)
    return statistics
