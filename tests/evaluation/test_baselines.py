"""The uncertainty baselines against their formulas, written out, on logits made by hand."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from fake_rows import CODES, row, scored
from scipy.special import digamma

from verdictree.families.grammar import label_list
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.exploration import Explored, NodeLogits
from verdictree_evaluation.metrics import baselines, decisions

LOGITS = np.array([[3.0, 1.0, 0.0], [12.0, 11.0, -4.0], [-1.0, -2.0, -3.0]])


def test_top_probability():
    """Taking the largest logit for a probability, or the largest probability for an uncertainty."""
    p = math.exp(3) / (math.exp(3) + math.exp(1) + 1)
    assert baselines.top_probability(LOGITS)[0] == pytest.approx(1 / (1 + p))


def test_entropy():
    """Entropy in bits, or over logits instead of probabilities; and nan where a probability is 0."""
    weights = [math.exp(3), math.exp(1), 1.0]
    p = [w / sum(weights) for w in weights]
    assert baselines.entropy(LOGITS)[0] == pytest.approx(-sum(x * math.log(x) for x in p))
    assert baselines.entropy(np.array([[1000.0, 0.0]]))[0] == 0.0


def test_logtoku():
    """Evidence from the wrong logits, and against dividing AU and EU instead of multiplying."""
    a, b = 3.0, 1.0
    aleatoric = -(a / 4 * (digamma(a + 1) - digamma(5)) + b / 4 * (digamma(b + 1) - digamma(5)))
    assert baselines.logtoku(LOGITS)[0] == pytest.approx(aleatoric * 2 / (a + 1 + b + 1))


def test_logtoku_without_evidence():
    """Nan and digamma's poles where all logits are negative."""
    assert baselines.logtoku(LOGITS)[2] == 0.0


TOKENS = {"safe": 2, "unsafe": 3, "\n": 4, "S": 5, "1": 6, "0": 7, "2": 8, ",": 9}


def encode(text: str) -> list[int]:
    found = []
    while text:
        word = next(word for word in sorted(TOKENS, key=len, reverse=True) if text.startswith(word))
        found.append(TOKENS[word])
        text = text[len(word) :]
    return found


def test_label_logits_of_split_labels():
    """Counting S10 as S1 where the tokenizer splits digits, and against the wrong node's logits."""
    tree = compile_tree(label_list("safe", "unsafe", "\n", ","), CODES, encode, [0])
    rng = np.random.default_rng(0)
    full = rng.normal(size=(len(tree.first_label_trie), 12))
    normalizer = np.log(np.exp(full).sum(axis=1))
    nodes = NodeLogits(full[:, list(tree.vocabulary)], normalizer, full.max(axis=1))
    read = baselines.LabelLogits(tree, tree.labels)
    assert read(Explored(nodes, {})) is None  # no list was opened
    got = read(Explored(nodes, {(0,): nodes}))
    prefix = tree.first_label_trie.walk([4, 5, 0])[-1]
    after_one = tree.first_label_trie.walk([4, 5, 6, 0])[-1]
    p = np.exp(full - normalizer[:, None])
    expected = [p[prefix, 6] * (1 - p[after_one, 7]), p[prefix, 8], p[prefix, 6] * p[after_one, 7]]
    assert got == pytest.approx(np.log(expected) + normalizer[prefix])
    assert got[1] == pytest.approx(full[prefix, 8])  # a label of one token has that token's logit


def test_second_label_rule_is_the_best_one():
    """A rule for naming two labels that brute force over all thresholds and sides beats."""
    rng = np.random.default_rng(1)
    rows = [row(f"r{i}", rng.choice(CODES, 2, replace=False), "complete") for i in range(12)]
    rows += [row(f"s{i}", (CODES[i % 3],), "complete") for i in range(12)]
    logits = rng.normal(10, 2, size=(24, 3))
    data = scored(rows, rng.random((24, 3)), p_unsafe=np.full(24, 0.9), logits=logits)
    flags = decisions._baseline(baselines.entropy)(data, data)
    u = baselines.entropy(logits)
    order = np.argsort(-logits, axis=1)
    best = 0.0
    for threshold, side in itertools.product([*u, np.inf], (1, -1)):
        named = np.zeros_like(flags)
        named[np.arange(24), order[:, 0]] = True
        both = np.flatnonzero(side * u >= side * threshold)
        named[both, order[both, 1]] = True
        best = max(best, 2 * (named & data.truth).sum() / (named.sum() + data.truth.sum()))
    assert 2 * (flags & data.truth).sum() / (flags.sum() + data.truth.sum()) == pytest.approx(best)


def test_baselines_need_logits():
    """Invented baselines where a server scored the rows."""
    data = scored([row("a", ("S1",)), row("b")], np.full((2, 3), 0.5))
    names = [method.name for method in decisions.methods(data, data)]
    assert not set(baselines.BASELINES) & set(names)
    with_logits = replace(data, label_logits=np.ones((2, 3)))
    assert set(baselines.BASELINES) <= {method.name for method in decisions.methods(with_logits, with_logits)}


def test_safe_rows_name_nothing():
    """Baselines that flag a label on every safe row, since they never look at P(unsafe)."""
    data = scored([row("a"), row("b", ("S1",))], np.full((2, 3), 0.5), p_unsafe=[0.1, 0.9], logits=LOGITS[:2])
    flags = decisions._baseline(baselines.entropy)(data, data)
    assert not flags[0].any() and flags[1].any()
