"""The estimates against brute-force enumeration of every answer."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from operator import eq

import numpy as np
import pytest
from core.fake_lm import END, GRAMMAR, NOISE, TOKENIZERS, FakeLM, explore, path_of

from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.marginals import Marginalizer

MAX_LABELS = 3


@dataclass
class Enumerated:
    """Masses of all answers, by plain recursion over tokens."""

    marginal: dict[str, float] = field(default_factory=dict)
    safe: float = 0.0
    unsafe: float = 0.0
    off_grammar: float = 0.0
    cut_off: float = 0.0


def enumerate_answers(lm, tokenizer, labels, max_labels):
    """Follow every token sequence until it ends, leaves the grammar, or begins label `max_labels + 1`."""
    verdicts = {
        tuple(tokenizer(GRAMMAR.unsafe_answer(named))): named
        for count in range(1, max_labels + 2)
        for named in itertools.product(labels, repeat=count)
    }
    # A label has ended where the tokens differ that verdicts have which name it, and the same labels before it.
    stable = {}
    for tokens, named in verdicts.items():
        for count in range(1, len(named) + 1):
            prefix = stable.get(named[:count], (*tokens, END))
            stable[named[:count]] = prefix[: len(list(itertools.takewhile(bool, map(eq, prefix, (*tokens, END)))))]
    # Each beginning of a verdict, with the labels that were ended by what follows them.
    begun = {}
    for tokens, named in verdicts.items():
        for length in range(1, len(tokens) + 1):
            ended = sum(len(stable[named[:count]]) < length for count in range(1, len(named) + 1))
            begun.setdefault(tokens[:length], set()).add(named[:ended])
    safe, unsafe = tuple(tokenizer("safe")), tuple(tokenizer("unsafe"))
    result = Enumerated(dict.fromkeys(labels, 0.0))

    def account(named, mass):
        for label in set(named):
            result.marginal[label] += mass

    def follow(sequence, mass, named):
        if sequence == safe:
            result.safe += mass
            return
        if sequence == unsafe:
            result.unsafe += mass
        if len(named) == max_labels:
            result.cut_off += mass
            account(named, mass)
            return
        for token, p in enumerate(lm.probs(sequence)):
            longer = (*sequence, token)
            if token == END and sequence in verdicts:
                account(verdicts[sequence], mass * p)
            elif token == END and sequence == unsafe:  # a verdict without a list
                continue
            elif longer in begun or safe[: len(longer)] == longer:
                follow(longer, mass * p, max(begun.get(longer, [named]), key=len))
            else:
                result.off_grammar += mass * p
                account(named, mass * p)

    follow((), 1.0, ())
    return result


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("seed", range(2))
def test_estimates_equal_enumeration(name, seed):
    """Counting S1 on the way to S10, a repeated label twice, or a merged separator wrongly changes a sum."""
    tokenizer, labels = TOKENIZERS[name]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    lm = FakeLM(tokenizer.size, seed)
    estimates = Marginalizer(tree)(explore(lm, tree, MAX_LABELS))
    expected = enumerate_answers(lm, tokenizer, labels, MAX_LABELS)
    np.testing.assert_allclose(estimates.marginal, list(expected.marginal.values()), atol=1e-9)
    assert estimates.p_safe == pytest.approx(expected.safe, abs=1e-9)
    assert estimates.p_unsafe == pytest.approx(expected.unsafe, abs=1e-9)
    assert estimates.off_grammar == pytest.approx(expected.off_grammar, abs=1e-9)
    assert estimates.unexplored == pytest.approx(expected.cut_off + expected.off_grammar, abs=1e-9)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("epsilon", [0.003, 0.03, 0.3, 1.1])
@pytest.mark.parametrize("first_labels_apart", [False, True])
def test_pruned_marginal_is_a_lower_bound_with_a_stated_gap(name, epsilon, first_labels_apart):
    """A pruned search that reports its sum as the truth is silently low (the reference does)."""
    tokenizer, labels = TOKENIZERS[name]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END], first_labels_apart)
    for seed in range(3):
        lm = FakeLM(tokenizer.size, seed, favour={NOISE: -3.0})
        pruned = Marginalizer(tree)(explore(lm, tree, 2, epsilon))
        deep = enumerate_answers(lm, tokenizer, labels, 3)
        truth_low = np.array(list(deep.marginal.values()))
        assert (pruned.marginal <= truth_low + 1e-9).all()
        assert (truth_low <= pruned.marginal + pruned.unexplored + 1e-9).all()


def test_masses_never_exceed_one():
    """Overlapping events counted twice would make the parts sum to more than everything."""
    tokenizer, labels = TOKENIZERS["digits split"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    for seed in range(20):
        estimates = Marginalizer(tree)(explore(FakeLM(tokenizer.size, seed), tree, 2, 0.01))
        assert estimates.p_safe + estimates.p_unsafe <= 1 + 1e-12
        assert (estimates.marginal <= estimates.p_unsafe + 1e-12).all()
        assert 0 <= estimates.off_grammar <= 1
        assert estimates.p_safe + estimates.unexplored <= 1 + 1e-9
        assert estimates.off_grammar <= estimates.unexplored


def greedy_decode(lm):
    """Plain greedy decoding: the tokens before the end of the turn, and the probability of each."""
    sequence, probabilities = [], []
    while (token := int(lm.probs(sequence).argmax())) != END:
        probabilities.append(float(lm.probs(sequence)[token]))
        sequence.append(token)
    return sequence, probabilities


@pytest.mark.parametrize("named", [("T0",), ("S102", "T0", "S1"), ("S1", "T0", "T0"), ("T1", "S102")])
def test_greedy_ends_each_label_by_its_own_terminators(named):
    """A token that ends one label goes on in another; a merged one ends a label and separates."""
    tokenizer, labels = TOKENIZERS["merged ends"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    lm = FakeLM(tokenizer.size, 7)
    lm.script([*tokenizer(GRAMMAR.unsafe_answer(named)), END])
    greedy = Marginalizer(tree)(explore(lm, tree, MAX_LABELS + 1)).greedy
    assert greedy.text(tree) == GRAMMAR.unsafe_answer(named) and greedy.complete
    assert [labels[step.label] for step in greedy.steps] == list(named)
    for count, step in enumerate(greedy.steps, start=1):
        *before, last = tree.path_tokens(path_of(tree, [labels.index(label) for label in named[:count]]))
        assert step.conditional == pytest.approx(lm.probs(before)[last])


def test_greedy_names_no_label_that_another_ones_terminator_follows():
    """`2` ends S102, whose last token it is, but not S1."""
    tokenizer, labels = TOKENIZERS["merged ends"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    lm = FakeLM(tokenizer.size, 7)
    lm.script([*tokenizer("unsafe\nS12"), END])
    greedy = Marginalizer(tree)(explore(lm, tree, MAX_LABELS)).greedy
    assert greedy.unsafe and not greedy.steps and not greedy.complete


@pytest.mark.parametrize("named", [("S1",), ("S10", "S2"), ("S2", "S2", "S1"), ("S1", "S10", "S1")])
@pytest.mark.parametrize("name", ["digits split", "whole labels", "merged separator"])
def test_greedy_estimates_equal_plain_decoding(name, named):
    """A constrained argmax, or a product over separators, would differ from what the guard itself answers."""
    tokenizer, labels = TOKENIZERS[name]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    lm = FakeLM(tokenizer.size, 7)
    lm.script([*tokenizer(GRAMMAR.unsafe_answer(named)), END])
    sequence, probabilities = greedy_decode(lm)
    words = {i: word for word, i in tokenizer.ids.items()}
    text = "".join(words[token] for token in sequence)
    estimates = Marginalizer(tree)(explore(lm, tree, MAX_LABELS))
    assert estimates.greedy.text(tree) == text == GRAMMAR.unsafe_answer(named)
    assert estimates.greedy.complete
    joint, conditional, running, spelled = {}, {}, 1.0, ""
    remaining = list(named)
    for token, p in zip(sequence, probabilities, strict=True):
        word = words[token]
        running *= p if word not in (",", "\n") else 1.0
        spelled += word.strip(",\n")
        if spelled == "unsafe":
            spelled = ""
        elif remaining and spelled == remaining[0]:
            joint.setdefault(remaining[0], running)
            conditional.setdefault(remaining.pop(0), p)
            spelled = ""
    assert not remaining
    np.testing.assert_allclose(estimates.joint, [joint.get(label, 0.0) for label in labels], atol=1e-9)
    np.testing.assert_allclose(estimates.conditional, [conditional.get(label, 0.0) for label in labels], atol=1e-9)


def test_greedy_says_where_it_could_not_follow():
    """An answer outside the grammar must not be passed off as a complete verdict."""
    tokenizer, labels = TOKENIZERS["whole labels"]
    tree = compile_tree(GRAMMAR, labels, tokenizer, [END])
    estimates = Marginalizer(tree)(explore(FakeLM(tokenizer.size, 0, {NOISE: 50.0}), tree, 1))
    assert estimates.greedy.answer is None and not estimates.greedy.complete
    assert estimates.off_grammar == pytest.approx(1.0)
