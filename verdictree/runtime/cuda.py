"""Is ONNX Runtime able to run on a GPU? Left to itself it warns, and runs on the CPU."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import onnxruntime

from verdictree.errors import GpuUnavailable

PROVIDER = "CUDAExecutionProvider"
INSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'verdictree[serve-gpu]'"

_LIBRARY = "libonnxruntime_providers_cuda.so"
_OPENED_LATER = ("libcudnn.so.9",)  # at the first reduction: without it a session loads, and every request fails


def require_cuda() -> None:
    """Raise GpuUnavailable, naming the library, where the CUDA provider or a library that it needs cannot be loaded."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise GpuUnavailable(f"expected an ONNX Runtime with CUDA, got one without; fix: {INSTALL}")
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # those that came as packages, which the dynamic linker does not look for
    provider = Path(onnxruntime.__file__).parent / "capi" / _LIBRARY
    for library in (str(provider), *_OPENED_LATER):
        if missing := _missing(library):
            raise GpuUnavailable(
                f"expected {missing} for {PROVIDER} of ONNX Runtime {onnxruntime.__version__}, got none; install CUDA "
                "and cuDNN in the versions that it asks for (pip install 'onnxruntime-gpu[cuda,cudnn]'), or put the "
                "folder that has it into LD_LIBRARY_PATH"
            )


def _missing(library: str) -> str | None:
    """The library that the dynamic linker does not find: this one, or one that it needs."""
    try:
        ctypes.CDLL(library)
    except OSError as exc:
        found = re.match(r"(lib[\w.+-]+): cannot open shared object file", str(exc))
        return found.group(1) if found else None  # symbols that ONNX Runtime itself provides when it loads it
    return None
