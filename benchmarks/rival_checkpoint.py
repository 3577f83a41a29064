"""The measured guard, once for all systems: a Hugging Face folder in bfloat16, and a GGUF file at Q8_0."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks import gguf_file
from verdictree_export.checkpoints.source import EMBEDDED
from verdictree_export.prompts import checkpoint


def main(adapter: str, gguf: str, folder: str) -> None:
    """Merge the adapter into the embedded checkpoint; write `folder` and, beside it, `folder`-q8_0.gguf.

    `gguf` is the file that the embedded checkpoint comes in.
    """
    guard = checkpoint.load(EMBEDDED, Path(adapter))
    guard.model.to(torch.bfloat16).save_pretrained(Path(folder))
    guard.tokenizer.save_pretrained(Path(folder))
    gguf_file.write(guard.model, Path(gguf), Path(f"{folder}-q8_0.gguf"))


if __name__ == "__main__":
    main(*sys.argv[1:])
