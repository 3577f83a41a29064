"""Tries: sets of token sequences, of which a language model is asked once at each inner node.

The sequences `S 1`, `S 1 0` and `S 2` make the trie

    node  token  parent  what the model says there
       0      ·       ·  p(S)
       1      S       0  p(1 | S), p(2 | S)
       2      1       1  p(0 | S 1)

A sequence's last token needs no node: the node before it tells its probability. So `S 2` adds none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

Tokens = tuple[int, ...]


class Trie(msgspec.Struct, frozen=True):
    """The inner nodes that a set of token sequences passes through, parents before children.

    Node 0 is the entry: its hidden state is that of the token before the trie. Node i feeds `tokens[i]`
    (`tokens[0]` is 0 and means nothing) and follows node `parents[i]`.
    """

    tokens: Tokens
    parents: tuple[int, ...]

    @classmethod
    def of(cls, sequences: Iterable[Tokens]) -> Self:
        """The trie of these sequences: a node for each beginning of one, shorter ones first."""
        prefixes = {sequence[:n] for sequence in sequences for n in range(1, len(sequence))}
        ordered = sorted(prefixes, key=lambda prefix: (len(prefix), prefix))
        index = {prefix: i for i, prefix in enumerate(ordered, start=1)} | {(): 0}
        return cls(
            tokens=(0, *(prefix[-1] for prefix in ordered)),
            parents=(0, *(index[prefix[:-1]] for prefix in ordered)),
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depths(self) -> tuple[int, ...]:
        """Number of tokens from the entry to each node, shape (nodes,)."""
        return tuple(map(len, self.sequences()))

    def sequences(self) -> list[Tokens]:
        """The tokens from the entry to each node."""
        sequences: list[Tokens] = [()]
        for parent, token in zip(self.parents[1:], self.tokens[1:], strict=True):
            sequences.append((*sequences[parent], token))
        return sequences

    def walk(self, sequence: Sequence[int]) -> list[int]:
        """The nodes at which the tokens of `sequence` are chosen, one for each token."""
        children = {(self.parents[i], self.tokens[i]): i for i in range(1, len(self))}
        nodes = [0]
        for token in sequence[:-1]:
            nodes.append(children[nodes[-1], token])
        return nodes

    def node_after(self, sequence: Sequence[int]) -> int:
        """The node that is reached by feeding all tokens of `sequence`."""
        return self.walk((*sequence, 0))[-1]

    def ancestors(self, sequences: Sequence[Tokens]) -> npt.NDArray[np.bool_]:
        """Which nodes each sequence passes through, shape (sequences, nodes); the entry is always among them."""
        passed = np.zeros((len(sequences), len(self)), dtype=bool)
        for row, sequence in enumerate(sequences):
            passed[row, self.walk(sequence)] = True
        return passed

    def visibility(self) -> npt.NDArray[np.bool_]:
        """Tree attention: whether node i (row) attends to node j (column), shape (nodes, nodes)."""
        visible = np.eye(len(self), dtype=bool)
        for i in range(1, len(self)):
            visible[i] |= visible[self.parents[i]]
        return visible

    def path_matrix(self, sequences: Sequence[Tokens], vocabulary: Tokens) -> npt.NDArray[np.float64]:
        """0/1 matrix that turns node log-probabilities, flattened from (nodes, vocabulary), into those of sequences.

        log p(sequence) = Σ_t log p(token_t | node_t). Shape (nodes * vocabulary, sequences).
        """
        column = {token: i for i, token in enumerate(vocabulary)}
        matrix = np.zeros((len(self), len(vocabulary), len(sequences)))
        for index, sequence in enumerate(sequences):
            for node, token in zip(self.walk(sequence), sequence, strict=True):
                matrix[node, column[token], index] = 1.0
        return matrix.reshape(len(self) * len(vocabulary), len(sequences))
