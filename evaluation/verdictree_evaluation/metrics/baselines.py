"""The paper's three uncertainty baselines, from one forward pass: the label logits at the forced prefix `unsafe\\nS`.

Each baseline is an uncertainty u over the logits ℓ_1 … ℓ_C of the labels. Following the reference code of arXiv
2511.22312 (`benchmark_logtoku.py`), a row's verdict is its top label, and its second one too on one side of a threshold
on u; a row that the guard finds safe (p_safe > p_unsafe) names nothing. They yield labels, no category probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, entr, softmax

from verdictree.verdict_tree.exploration import Explored
from verdictree.verdict_tree.tree import VerdictTree

Array = npt.NDArray[np.float64]

LOGTOKU_K = 2


def top_probability(logits: Array) -> Array:
    """u = 1 / (1 + max_c softmax(ℓ)_c): the reference code's form. (rows, labels) → (rows,)."""
    return np.asarray(1.0 / (1.0 + softmax(logits, axis=-1).max(axis=-1)))


def entropy(logits: Array) -> Array:
    """u = −Σ_c p_c log p_c with p = softmax(ℓ), in nats. (rows, labels) → (rows,)."""
    return np.asarray(entr(softmax(logits, axis=-1)).sum(axis=-1))


def logtoku(logits: Array, k: int = LOGTOKU_K) -> Array:
    """u = AU · EU over the k largest logits, as evidence α = max(ℓ, 0) of a Dirichlet. (rows, labels) → (rows,).

    AU = −Σ_i (α_i / α_0) (ψ(α_i + 1) − ψ(α_0 + 1)), α_0 = Σ_i α_i;  EU = k / Σ_i (α_i + 1).
    Source: LogTokU, arXiv 2502.00290 (reliability = −AU · EU). The reference code of arXiv 2511.22312 takes k = 2 too,
    but divides EU by AU, and does not cut off negative logits in AU. Without evidence (α_0 = 0) AU is 0.
    """
    alpha = np.maximum(np.sort(logits, axis=-1)[..., -k:], 0.0)
    total = alpha.sum(axis=-1, keepdims=True)
    share = np.divide(alpha, total, out=np.zeros_like(alpha), where=total > 0)
    aleatoric = -(share * (digamma(alpha + 1.0) - digamma(total + 1.0))).sum(axis=-1)
    return np.asarray(aleatoric * k / (alpha + 1.0).sum(axis=-1))


BASELINES: dict[str, Callable[[Array], Array]] = {
    "top probability": top_probability,
    "entropy": entropy,
    "LogTokU": logtoku,
}


class LabelLogits:
    """Reads the label logits at the forced prefix off an explored tree.

    The forced prefix is the verdict that opens the list and what all first labels' paths share (`unsafe\\nS`). A label
    of one more token has that token's logit. A label of several tokens (`10` split into digits) has the logit that one
    token of its probability would have at the prefix, log p(label | prefix) + log Σ exp; what goes on to a longer label
    (S1 → S10) is not counted.
    """

    def __init__(self, tree: VerdictTree, labels: Sequence[str]) -> None:
        """Those of `labels`, which are among the tree's."""
        paths = tree.first
        shared = 0
        while all(len(path) > shared + 1 for path in paths) and len({path[shared] for path in paths}) == 1:
            shared += 1
        trie = tree.first_label_trie
        whole = trie.path_matrix(paths, tree.vocabulary)
        self._columns = [tree.labels.index(label) for label in labels]
        self._node = trie.node_after(paths[0][:shared])
        self._matrix = whole - trie.path_matrix([paths[0][:shared]], tree.vocabulary)
        self._extends = np.array([[_extends(long, short) for long in paths] for short in paths])

    def __call__(self, explored: Explored) -> Array | None:
        """(labels,), or None where the verdict was so unlikely that its list was not opened."""
        first = explored.blocks.get((0,))
        if first is None:
            return None
        log_p = first.log_probs.reshape(-1) @ self._matrix
        own = np.exp(log_p) - np.where(self._extends, np.exp(log_p), 0.0).sum(axis=1)
        shorter = self._extends.any(axis=1)
        exact = np.where(shorter, np.log(np.maximum(own, np.finfo(np.float64).tiny)), log_p)
        return np.asarray(exact + float(first.log_normalizer[self._node]))[self._columns]


def _extends(longer: tuple[int, ...], shorter: tuple[int, ...]) -> bool:
    return longer != shorter and longer[: len(shorter)] == shorter
