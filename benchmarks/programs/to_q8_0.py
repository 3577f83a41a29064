"""A GGUF file at Q8_0, from one of any other type, by llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
import sys

import llama_cpp


def main(source: str, target: str) -> None:
    """Write `source`, whatever its type, as the Q8_0 file `target`."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    parameters.allow_requantize = True  # the weights that the package carries are quantized already, to Q4_1
    failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    if failed:
        sys.exit(f"expected a GGUF file at {source!r} that llama.cpp can read; it cannot")


if __name__ == "__main__":
    main(*sys.argv[1:])
