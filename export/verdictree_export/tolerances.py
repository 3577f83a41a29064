"""What each precision of a graph means, and how far a sound graph may be from what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Precision:
    """One precision of a graph.

    checkpoint    what the checkpoint is read as
    is_quantized  whether that graph is then quantized to 8 bits, and judged by `int8.quality_gate`
    parity        |Δ log p| between the graph, before it is quantized, and the checkpoint
    golden        |Δ log-odds| of a golden conversation between two machines. Rounding of the same fp32 graph gives
                  about 1e-5, another graph far more; 8 bits and half precision amplify such differences
    addition      |Δ p| at the root of the verdict tree between a graph and the same with one policy more: sums in
                  another order differ in the last digits, which 8 bits and half precision amplify
    """

    checkpoint: Literal["float32", "float16"]
    is_quantized: bool
    parity: float
    golden: float
    addition: float


PRECISIONS = {
    "fp32": Precision("float32", is_quantized=False, parity=1e-3, golden=0.02, addition=1e-4),
    "fp16": Precision("float16", is_quantized=False, parity=5e-2, golden=0.2, addition=1e-2),
    "int8": Precision("float32", is_quantized=True, parity=1e-3, golden=1.0, addition=5e-2),
}
