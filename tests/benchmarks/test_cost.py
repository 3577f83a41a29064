"""Computed tokens, against a count by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from benchmarks import cost
from verdictree.verdict_tree.exploration import Exploration

SHAPE = cost.model_shape(
    SimpleNamespace(
        hidden_size=6, intermediate_size=10, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        vocab_size=50,
    )
)  # fmt: skip


def release(root: int, first_label: int, continuation: int, suffixes: tuple[int, ...]) -> SimpleNamespace:
    sizes = {"root_trie": root, "first_label_trie": first_label, "continuation_trie": continuation}
    tries = {name: [None] * size for name, size in sizes.items()}
    return SimpleNamespace(
        tree=SimpleNamespace(unused=3, first=[None], first_labels_apart=first_label > 0, **tries),
        num_questions=1,
        exploration=Exploration(max_labels=2),
        prompts=[SimpleNamespace(suffix_ids=(0,) * length) for length in suffixes],
    )


def test_blocks_count_by_the_length_of_their_path():
    """Ours would look near the ceiling if unused beam slots or whole tries at the last depth were counted as work."""
    expansions = np.array([[[3, 3]] * 3, [[1, 3], [1, 0], [2, 3]]], dtype=np.int32)
    found = cost.of_batch(release(root=5, first_label=0, continuation=4, suffixes=(7, 9)), 30, expansions)
    assert found.expanded_paths == 3
    assert found.computed_tokens == 30 + 2 * (9 + 4) + (4 + 4 + 1)
    assert found.nodes == 2 * 5 + (4 + 4 + 1)


def test_an_opening_by_itself_counts_where_it_is_evaluated():
    """A first-label trie that every request is charged for, and against one that is free."""
    unused = [3, 3, 3]
    expansions = np.array([[unused] * 4, [[0, 3, 3], [0, 1, 3], [0, 1, 0], [0, 2, 3]]], dtype=np.int32)
    found = cost.of_batch(release(root=2, first_label=6, continuation=4, suffixes=(7, 9)), 30, expansions)
    assert found.expanded_paths == 3
    assert found.computed_tokens == 30 + 2 * (9 + 1) + (6 + 4 + 4 + 1)
    assert found.nodes == 2 * 2 + (6 + 4 + 4 + 1)


def test_operations_are_two_for_each_weight_and_token():
    """A wrong layer shape would shift every fraction of the ceiling."""
    block = 6 * 6 + 2 * 6 * 2 + 6 * 6 + 2 * 6 * 10 + 10 * 6
    assert SHAPE.multiplications_per_token == 2 * block
    key_value = 2 * 6 * 2
    expected = 2 * 2 * block + (block + key_value) + 2 * 6 * 50  # two nodes, and one other token
    assert cost.Cost(computed_tokens=3, nodes=2).operations(SHAPE) == 2 * expected
