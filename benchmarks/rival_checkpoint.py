"""The checkpoint as vLLM reads it: a Hugging Face folder, in the precision that vLLM computes in."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from verdictree_export import checkpoint


def main(source: str, folder: str) -> None:
    """Save the checkpoint `source`, its GGUF weights multiplied out, into `folder`."""
    guard = checkpoint.load(source)
    guard.model.to(torch.bfloat16).save_pretrained(Path(folder))
    guard.tokenizer.save_pretrained(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
