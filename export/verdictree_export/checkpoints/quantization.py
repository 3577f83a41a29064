"""Quantized checkpoints: dequantized where transformers can without a GPU, else refused with the way out."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from verdictree.errors import UnsupportedGuard
from verdictree.text.visible import bounded

# Of each method that can be undone on a CPU, the module that it takes, and the package that has it.
_UNDONE: dict[str, tuple[str, str]] = {
    "compressed-tensors": ("compressed_tensors", "compressed-tensors"),
    "bitsandbytes": ("bitsandbytes", "bitsandbytes"),
}
_OF_BITSANDBYTES = (".SCB", ".absmax")  # the scales of 8 and of 4 bits
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


def method_of(raw: dict[str, Any]) -> str | None:
    """How a checkpoint is quantized, by its config.json; None where it is not."""
    said = raw.get("quantization_config") or raw.get("compression_config")
    if not said:
        return None
    if not isinstance(said, dict):
        return str(said)
    if said.get("load_in_8bit") or said.get("load_in_4bit"):
        return "bitsandbytes"
    return str(said.get("quant_method") or said.get("quant_algo") or "an unnamed method")


def check_method(method: str, source: str, folder: Path | None) -> None:
    """Raise UnsupportedGuard where a checkpoint that is quantized so cannot be dequantized here."""
    if method not in _UNDONE:
        raise UnsupportedGuard(
            f"expected weights in full or half precision, got {source!r}, quantized by {bounded(method, 40)}, "
            f"which cannot be undone without a GPU; give the unquantized checkpoint{_original(folder)}, and "
            "--precision int8 for a small release"
        )
    module, package = _UNDONE[method]
    if importlib.util.find_spec(module) is None:
        raise UnsupportedGuard(
            f"expected the package {package} to dequantize {source!r}, got none; `pip install {package}`, or give the "
            f"unquantized checkpoint{_original(folder)}"
        )


def check_quantized(method: str, source: str, names: Collection[str]) -> None:
    """Raise UnsupportedGuard where a checkpoint's tensors are not quantized though it says so.

    bitsandbytes would quantize them while it loads them.
    """
    if method == "bitsandbytes" and names and not any(name.endswith(_OF_BITSANDBYTES) for name in names):
        raise UnsupportedGuard(
            f"expected weights that are quantized by bitsandbytes, as config.json of {source!r} says, got others; "
            "remove quantization_config from it"
        )


def loading_options(method: str | None) -> dict[str, Any]:
    """What `from_pretrained` is told so that it dequantizes, as far as it does so by itself."""
    from transformers import CompressedTensorsConfig

    if method == "compressed-tensors":
        return {"quantization_config": CompressedTensorsConfig(run_compressed=False)}
    return {}


def dequantized(model: Any, dtype: torch.dtype) -> Any:
    """The model with plain linear layers of `dtype`; what was quantized besides weights (activations) is so no more."""
    if hasattr(model, "hf_quantizer") and model.hf_quantizer.quantization_config.quant_method == "bitsandbytes":
        model = model.dequantize()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and (type(module) is not nn.Linear or "forward" in vars(module)):
            model.set_submodule(name, _plain(module))
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False
    return model.to(dtype)


def _plain(layer: nn.Linear) -> nn.Linear:
    plain = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    plain.weight = nn.Parameter(layer.weight.data, requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    return plain


def _original(folder: Path | None) -> str:
    """`, here NAME`, where the checkpoint's card names one model that it was made of."""
    try:
        card = ((folder or Path()) / "README.md").read_text(encoding="utf-8") if folder else ""
        front = _FRONT_MATTER.match(card)
        base = yaml.safe_load(front[1]).get("base_model") if front else None
    except (OSError, ValueError, AttributeError, yaml.YAMLError):  # a card is a courtesy, and may be anything
        return ""
    names = base if isinstance(base, list) else [base]
    return f", here {bounded(names[0], 100)}" if len(names) == 1 and isinstance(names[0], str) else ""
