"""What most people would write first: transformers' `generate`, greedy, whole batches, with the logits of each step."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import transformers

from benchmarks import machine
from benchmarks.programs.answering import Loaded, Prompts, answer, in_batches
from verdictree_export.prompts import checkpoint

MAX_NEW_TOKENS = 8


def load(source: str, prompts_file: str) -> Loaded:
    """The checkpoint `source`, to be asked the prompts of `prompts_file`."""
    prompts = Prompts.read(prompts_file)
    precision = getattr(torch, machine.fastest_float())
    model = checkpoint.load(source).model.to(precision)
    padding = prompts.end_tokens[0]

    def run(batch: Sequence[list[int]]) -> dict[str, float]:
        width = max(map(len, batch))
        ids = torch.tensor([[padding] * (width - len(prompt)) + prompt for prompt in batch])
        real = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        with torch.inference_mode():
            output = model.generate(
                ids,
                attention_mask=real,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                eos_token_id=prompts.end_tokens,
                pad_token_id=padding,
                output_logits=True,
                return_dict_in_generate=True,
            )
        steps = output.sequences.shape[1] - width
        return {"computed_tokens": len(batch) * (width + steps - 1), "generated_tokens": len(batch) * steps}

    version = f"transformers {transformers.__version__}, torch {torch.__version__}, {precision}"
    return Loaded(version, prompts.mixes, in_batches(run))


if __name__ == "__main__":
    answer(lambda: load(*sys.argv[1:]))
