"""The paper's own search (arXiv 2511.22312, section 3): depth-first, one `generate` of one token for each node.

Each call takes the whole sequence: nothing is cached between nodes. A node's children are the tokens of its top-p set;
a branch whose probability falls below epsilon is dropped; siblings are skipped after a likely end of the turn, and
after the third candidate if the end is among the candidates. A label is named wherever the text ends with it.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from benchmarks import machine
from benchmarks.programs.answering import Loaded, Prompts, answer, in_batches
from verdictree_export.prompts import checkpoint

TOP_P, EPSILON, LIKELY_END, MAX_CANDIDATES, MAX_DEPTH = 0.99, 0.01, 0.7, 3, 20


class DepthFirstSearch:
    """The marginals of one prompt after the other, and how many tokens that took."""

    def __init__(self, guard: checkpoint.Checkpoint, model: Any, end_tokens: Sequence[int], labels: Sequence[str]):
        """`model` is the guard's, in the precision to search with."""
        self._tokenizer, self._model = guard.tokenizer, model
        self._ends, self._labels = set(end_tokens), tuple(labels)
        self.computed_tokens = self.nodes = 0

    def marginals(self, prompt: list[int]) -> dict[str, float]:
        """p(label) for each label that a followed branch names."""
        found: dict[str, float] = defaultdict(float)
        self._descend(prompt, [], 1.0, found)
        return dict(found)

    def _descend(self, prompt: list[int], answer_ids: list[int], reach: float, found: dict[str, float]) -> None:
        candidates = self._candidates([*prompt, *answer_ids])
        end_is_near = any(token in self._ends for token, _ in candidates)
        for rank, (token, probability) in enumerate(candidates, start=1):
            if reach * probability < EPSILON or (end_is_near and rank > MAX_CANDIDATES):
                return
            if token in self._ends:
                if probability >= LIKELY_END:
                    return
                continue
            longer = [*answer_ids, token]
            text = self._tokenizer.decode(longer)
            for label in self._labels:
                if text.endswith(label):
                    found[label] += reach * probability
            if len(longer) < MAX_DEPTH:
                self._descend(prompt, longer, reach * probability, found)

    def _candidates(self, ids: list[int]) -> list[tuple[int, float]]:
        """The top-p set of the next token, most probable first."""
        self.nodes += 1
        self.computed_tokens += len(ids)
        sequence = torch.tensor([ids])
        with torch.inference_mode():
            output = self._model.generate(
                sequence,
                attention_mask=torch.ones_like(sequence),
                max_new_tokens=1,
                do_sample=False,
                pad_token_id=min(self._ends),
                output_logits=True,
                return_dict_in_generate=True,
            )
        probabilities, tokens = output.logits[0][0].float().softmax(-1).sort(descending=True)
        count = int((probabilities.cumsum(0) < TOP_P).sum()) + 1
        return list(zip(tokens[:count].tolist(), probabilities[:count].tolist(), strict=True))


def load(source: str, prompts_file: str) -> Loaded:
    """The checkpoint `source`, to be asked the prompts of `prompts_file`."""
    prompts = Prompts.read(prompts_file)
    guard = checkpoint.load(source)
    precision = getattr(torch, machine.fastest_float())
    search = DepthFirstSearch(guard, guard.model.to(precision), prompts.end_tokens, prompts.labels)

    def run(batch: Sequence[list[int]]) -> dict[str, float]:
        tokens, nodes = search.computed_tokens, search.nodes
        for prompt in batch:
            search.marginals(prompt)
        return {"computed_tokens": search.computed_tokens - tokens, "visited_nodes": search.nodes - nodes}

    version = f"transformers {transformers.__version__}, torch {torch.__version__}, {precision}"
    return Loaded(version, prompts.mixes, in_batches(run))


if __name__ == "__main__":
    answer(lambda: load(*sys.argv[1:]))
