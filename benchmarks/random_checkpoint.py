"""Checkpoints of any shape, for speed only: random weights, the tokenizer and chat template of another checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from verdictree_export.prompts.checkpoint import load_weightless


def write(folder: Path, like: str, dtype: torch.dtype = torch.float32, **shape: Any) -> Path:
    """Write a checkpoint shaped like the checkpoint `like` but for the configuration's entries given in `shape`."""
    weightless = load_weightless(like)
    config = weightless.model.config
    for name, value in shape.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    weightless.tokenizer.save_pretrained(folder)
    return folder
