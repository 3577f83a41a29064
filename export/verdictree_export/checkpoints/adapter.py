"""A LoRA adapter, merged into the model that it was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from verdictree.errors import UnsupportedGuard
from verdictree_export.checkpoints.folder import ADAPTER_CONFIG
from verdictree_export.checkpoints.impostors import first_bytes
from verdictree_export.checkpoints.library_errors import told
from verdictree_export.checkpoints.weight_files import read_object

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def merged(model: Any, adapter: Path) -> Any:
    """The model with the adapter's changes in its weights.

    Raises UnsupportedGuard for a folder that holds no whole LoRA adapter, and for one of another model.
    """
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise UnsupportedGuard(f"expected a LoRA adapter folder with {ADAPTER_CONFIG}, got '{adapter}'")
    said = read_object(adapter / ADAPTER_CONFIG)
    if said.get("peft_type") != "LORA":
        raise UnsupportedGuard(
            f"expected a LoRA adapter in '{adapter}', got peft_type {said.get('peft_type')!r}; merge it into its "
            "checkpoint"
        )
    weights = next((adapter / name for name in _WEIGHTS if (adapter / name).exists()), adapter / _WEIGHTS[0])
    first_bytes(weights)
    from peft import PeftModel

    with told(str(adapter), "the LoRA adapter"):
        with warnings.catch_warnings(record=True) as said_by_peft:
            warnings.simplefilter("always")
            with_adapter = PeftModel.from_pretrained(model, str(adapter))
        lost = [str(one.message) for one in said_by_peft if "missing adapter keys" in str(one.message)]
        if lost:
            raise UnsupportedGuard(
                f"expected a LoRA adapter of this checkpoint in '{adapter}', got one that leaves layers of it as they "
                f"were; export the checkpoint that it was trained on, {said.get('base_model_name_or_path')!r}"
            )
        return with_adapter.merge_and_unload()
