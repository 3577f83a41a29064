"""What is done to an fp32 graph on its way to int8, in order; for the contract see `onnx_file.passes`.

Only `quantize` changes what the graph computes, and by how much is what the quality gate judges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from verdictree_export.int8.activations import Activations
from verdictree_export.int8.deferred_dequantization import defer_dequantization
from verdictree_export.int8.quantize import quantize
from verdictree_export.int8.rotation import rotate
from verdictree_export.int8.smoothing import smooth_gated
from verdictree_export.onnx_file.passes import Pass, drop_unread_weights

BEFORE_CALIBRATION: tuple[Pass, ...] = (
    rotate,  # one outlier channel makes the steps of all others coarse
)


def after_calibration(statistics: Mapping[str, Activations]) -> tuple[Pass, ...]:
    """What needs to know which activations the layers meet."""
    return (
        partial(smooth_gated, statistics=statistics),  # the inputs of down projections are not the stream's
    )


def to_int8(
    statistics: Mapping[str, Activations], keep: Collection[str], with_residual: Callable[[str], bool]
) -> tuple[Pass, ...]:
    """From a prepared graph to an int8 one; see `quantize`."""
    return (
        partial(quantize, statistics=statistics, keep=keep, with_residual=with_residual),
        defer_dequantization,  # a product for each token is cheaper than one for each of its channels
        drop_unread_weights,  # the fp32 ones
    )
