"""llama.cpp: greedy decoding of at most eight tokens; what a prompt shares with the one before it stays cached."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence

import llama_cpp

from benchmarks.programs.answering import Loaded, Prompts, answer, in_batches

MAX_NEW_TOKENS = 8


def load(gguf: str, prompts_file: str) -> Loaded:
    """The model file `gguf`, to be asked the prompts of `prompts_file`."""
    prompts = Prompts.read(prompts_file)
    cores = os.cpu_count()
    model = llama_cpp.Llama(gguf, n_ctx=2048, n_threads=cores, n_threads_batch=cores, verbose=False)
    cached: list[int] = []

    def run(batch: Sequence[list[int]]) -> dict[str, float]:
        nonlocal cached
        (prompt,) = batch  # its Python interface decodes one sequence at a time
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(prompt, cached, strict=False)))
        generated: list[int] = []
        for token in model.generate(prompt, temp=0.0):
            generated.append(token)
            if token in prompts.end_tokens or len(generated) == MAX_NEW_TOKENS:
                break
        cached = prompt + generated[:-1]
        return {"computed_tokens": len(cached) - shared, "generated_tokens": len(generated)}

    return Loaded(f"llama-cpp-python {llama_cpp.__version__}", prompts.mixes, in_batches(run))


if __name__ == "__main__":
    answer(lambda: load(*sys.argv[1:]))
