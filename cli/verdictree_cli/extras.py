"""Which extra a command needs: `pip install 'verdictree[EXTRA]'` installs all that it imports."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

EXTRAS = {
    "inspect": "export",
    "export": "export",
    "early-exit": "export",
    "policy add": "export",
    "policy check": "serve",
    "serve": "serve",
    "gateway": "gateway",
    "gateway-key": "gateway",
    "classify": "client",
    "evaluate": "evaluate",
    "calibrate": "evaluate",
    "rollout": "rollout",
}
_GPU = "-gpu"  # the same extra with the ONNX Runtime for CUDA; the two must not be installed side by side
_WITH_RUNTIME = ("export", "serve", "evaluate")


def fix(words: Sequence[str], package: str) -> str:
    """What to install so that the command of these words finds a package that it misses."""
    command = next(name for name in (" ".join(words[:2]), words[0]) if name in EXTRAS)
    extra = EXTRAS[command] + (_GPU if EXTRAS[command] in _WITH_RUNTIME and _has_gpu_runtime() else "")
    return (
        f"`verdictree {command}` needs the package {package.partition('.')[0]!r}, which is not installed; "
        f"fix: pip install 'verdictree[{extra}]'"
    )


def _has_gpu_runtime() -> bool:
    try:
        distribution("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True
