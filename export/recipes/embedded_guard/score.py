"""Score rows with the guard: P(unsafe) and the three estimates of each category, as the exported graph gives them.

Run: python export/recipes/embedded_guard/score.py test.jsonl --adapter DIR --output test_scores.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import torch
from data import POLICY
from encoding import GuardEncoder
from rich.progress import track
from rows import Row, read_rows
from torch import Tensor

from verdictree import families
from verdictree import policy as policies
from verdictree.conversation import ROLES
from verdictree.exploration import Exploration, unpack
from verdictree.marginals import Estimates, Marginalizer
from verdictree.tree import Tokens, VerdictTree
from verdictree_export import checkpoint
from verdictree_export.attention import PackedPass
from verdictree_export.graph import GuardGraph

_ROWS_PER_BATCH = 8
_SHOWN_DIGITS = 6


class Score(msgspec.Struct, frozen=True):
    """A row's labels and the guard's probabilities; the lists are in the policy's order of categories."""

    id: str
    source: str
    labels: tuple[str, ...]
    p_unsafe: float
    marginal: tuple[float, ...]
    joint: tuple[float, ...]
    conditional: tuple[float, ...]
    unexplored: float


class EagerGraph(GuardGraph):
    """The graph that is exported, run by PyTorch, which cannot reshape the zero tokens of a batch with nothing live."""

    def _run(self, tokens: Tensor, positions: Tensor, packed: PackedPass) -> Tensor:
        if len(tokens):
            return super()._run(tokens, positions, packed)
        packed.layers += packed.past
        return torch.zeros(0, self.config.hidden_size)


def estimate(
    graph: GuardGraph, tree: VerdictTree, conversations: Sequence[Tokens], prefix_id: Sequence[int]
) -> list[Estimates]:
    """The estimates of a batch of conversations, in one pass."""
    row_ends = torch.tensor([len(ids) for ids in conversations]).cumsum(0)
    with torch.no_grad():
        outputs = graph(
            torch.tensor([i for ids in conversations for i in ids]), row_ends, torch.tensor(prefix_id)[:, None]
        )
    logits, normalizer, top, expansions = (output.numpy() for output in outputs)
    return [
        Marginalizer(tree)(explored) for explored in unpack(tree, Exploration(), logits, normalizer, top, expansions)
    ]


@click.command()
@click.argument("rows", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--adapter", type=click.Path(exists=True, file_okay=False, path_type=Path), help="None: the base model.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="JSONL to write.")
def main(rows: Path, adapter: Path | None, output: Path) -> None:
    """Score the conversations of ROWS, a JSONL file in the format of the moderation data."""
    policy, family = policies.load(POLICY), families.family("instruct")
    guard = checkpoint.load(checkpoint.EMBEDDED, adapter)
    encode = GuardEncoder(guard, family, policy)
    prompts = encode.splits
    with torch.no_grad():
        graph = EagerGraph(guard.model, prompts, encode.tree, Exploration()).eval()
    judged = sorted(read_rows([rows], policy.codes), key=lambda row: len(row.text))
    batches = [judged[i : i + _ROWS_PER_BATCH] for i in range(0, len(judged), _ROWS_PER_BATCH)]
    with output.open("wb") as lines:
        for batch in track(batches, "scoring"):
            prefix_id = [ROLES.index(row.conversation[-1].role) for row in batch]
            estimates = estimate(graph, encode.tree, [encode.conversation(row) for row in batch], prefix_id)
            for row, estimated in zip(batch, estimates, strict=True):
                lines.write(msgspec.json.encode(_score(row, estimated)) + b"\n")


def _score(row: Row, estimates: Estimates) -> Score:
    def shown(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(round(float(value), _SHOWN_DIGITS) for value in values)

    marginal, joint, conditional = (
        shown(values.tolist()) for values in (estimates.marginal, estimates.joint, estimates.conditional)
    )
    p_unsafe, unexplored = shown([estimates.p_unsafe, estimates.unexplored])
    return Score(row.id, row.source, row.labels, p_unsafe, marginal, joint, conditional, unexplored)


if __name__ == "__main__":
    main()
