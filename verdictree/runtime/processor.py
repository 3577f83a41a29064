"""What the processor of this machine can do."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8"}


@functools.cache
def flags() -> frozenset[str]:
    """The processor's features as Linux names them; none where there is no /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())


def saturates() -> bool:
    """Whether ONNX Runtime's uint8 × int8 products come out wrong here.

    x86 without VNNI or AMX multiplies them by an instruction (`vpmaddubsw`) that adds each two products in 16 bits:
    255 · 127 twice is 64,770, which it cuts to 32,767.
    """
    return platform.machine() in ("x86_64", "AMD64") and not flags() & _DOT_PRODUCTS
