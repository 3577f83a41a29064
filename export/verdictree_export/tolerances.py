"""What each precision of a graph means, and how far a sound graph may be from what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PARITY = 1e-3
"""|Δ log p| between the fp32 graph, from which each precision is made, and the checkpoint."""


@dataclass(frozen=True)
class Precision:
    """One precision of a graph, which begins as fp32.

    golden        |Δ log-odds| of a golden conversation between two machines. Rounding of the same fp32 graph gives
                  about 1e-5, another graph far more; 8 bits and half precision amplify such differences
    addition      |Δ p| at the root of the verdict tree between a graph and the same with one policy more: sums in
                  another order differ in the last digits, which 8 bits and half precision amplify
    max_change    |ΔP(unsafe)| that the conversion from fp32 may make, at the 99th percentile
    half          the half precision that its layers are converted to, by ONNX's name
    is_quantized  whether they are quantized to 8 bits, which needs conversations to fit the steps to
    """

    golden: float
    addition: float
    max_change: float = 0.0
    half: Literal["FLOAT16", "BFLOAT16"] | None = None
    is_quantized: bool = False

    @property
    def is_converted(self) -> bool:
        """Whether it is not fp32 itself."""
        return self.half is not None or self.is_quantized


PRECISIONS = {
    "fp32": Precision(golden=0.02, addition=1e-4),
    "fp16": Precision(golden=0.2, addition=1e-2, max_change=0.01, half="FLOAT16"),
    "bf16": Precision(golden=1.0, addition=5e-2, max_change=0.01, half="BFLOAT16"),
    "int8": Precision(golden=1.0, addition=5e-2, max_change=0.02, is_quantized=True),
}
