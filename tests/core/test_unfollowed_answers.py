"""Answers that name a category in a form which is not followed: the promised bound holds for them all the same.

The guard's whole answers are known here, so the true probability of each category is a sum over them.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from core.fake_lm import END, FakeLM, explore
from hypothesis import given
from hypothesis import strategies as st

from verdictree import families
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.marginals import Marginalizer

FIRST_ID = 1  # of the characters; 0 ends the turn


def encode(text: str) -> list[int]:
    return [ord(character) + FIRST_ID for character in text]


class KnownAnswers(FakeLM):
    """A language model, of one token a character, that gives whole answers with known probabilities."""

    def __init__(self, masses: dict[str, float]) -> None:
        super().__init__(size=128 + FIRST_ID, seed=0)
        self.masses = {(*encode(text), END): mass for text, mass in masses.items()}

    def logits(self, sequence):
        row = np.full(self.size, 1e-30)
        for tokens, mass in self.masses.items():
            if tokens[: len(sequence)] == tuple(sequence) and len(tokens) > len(sequence):
                row[tokens[len(sequence)]] += mass
        return np.log(row / row.sum())


def bounds(family: str, labels: tuple[str, ...], masses: dict[str, float], role: str, max_labels: int = 3):
    """For each label its reported bounds, and the estimates."""
    tree = compile_tree(families.family(family).grammar, labels, encode, [END])
    found = Marginalizer(tree)(explore(KnownAnswers(masses), tree, max_labels), role)
    return {label: (low, low + found.unexplored) for label, low in zip(labels, found.marginal, strict=True)}, found


CODES, NAMES = ("S1", "S2", "S10"), ("Violence", "Sexual", "Sexual (minor)")
JSON = '{"User Safety": "unsafe", "Safety Categories": "%s"}'
QWEN = "Safety: Unsafe\nCategories: %s"
POLYGUARD = "Harmful request: yes\nRequest safety violations: %s\nResponse refusal: no"
UNFOLLOWED = {
    # One label that the tree knows, named in a form that the makers' own parsers would read all the same.
    "llama-guard-2": ["unsafe\nS9,%s", "unsafe\n%s, S9", "unsafe \n%s", "unsafe\n\n%s", "Unsafe\n%s", " unsafe\n%s"],
    "llama-guard-3": ["\n\nunsafe\nS14,%s", "\n\nunsafe\n%s;S14", "unsafe\n%s", "\n\nunsafe\n%s\n", "\n\nunsafe: %s"],
    "nemotron": [JSON % "Malware, %s", JSON % "%s,Malware", '{"User Safety":"unsafe","Safety Categories":"%s"}'],
    "polyguard": [POLYGUARD % "S9, %s", POLYGUARD % "%s,S9", POLYGUARD % "%s S9", POLYGUARD % "None\n%s"],
    "qwen3guard": [QWEN % "Jailbreak, %s", QWEN % "%s,Jailbreak", QWEN % "\n- %s", QWEN % "%s\nRefusal: Maybe"],
}
LABELS = {"nemotron": NAMES, "qwen3guard": NAMES}
FORMS = [(family, form) for family, forms in UNFOLLOWED.items() for form in forms]


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_a_category_named_in_another_form_is_within_the_bound(family, form):
    """Were that mass in `off_grammar` alone, a category of 0.6 would be reported as [0, 0]."""
    labels = LABELS.get(family, CODES)
    safe = families.family(family).grammar.first_answer("safe")
    harmless = families.family(family).grammar.text(safe)
    for label in labels:
        found, estimates = bounds(family, labels, {form % label: 0.6, harmless: 0.4}, "user")
        low, high = found[label]
        assert low <= 0.6 + 1e-9 <= high + 2e-9
        assert estimates.off_grammar <= estimates.unexplored


def test_what_polyguard_says_after_its_list_is_not_looked_at():
    """Lines about the response that count as an answer which was not followed, or as another verdict."""
    known = {POLYGUARD % "S1": 0.5, POLYGUARD % "S1, S10": 0.2, "Harmful request: no\nRequest safety": 0.3}
    found, estimates = bounds("polyguard", CODES, known, "user")
    assert [low for low, _ in found.values()] == pytest.approx([0.7, 0.0, 0.2], abs=1e-9)
    assert (estimates.p_unsafe, estimates.unexplored) == (pytest.approx(0.7), pytest.approx(0.0, abs=1e-9))


@given(st.data())
def test_the_bound_holds_for_any_answers(data):
    """Answers of the grammar and beside it, in any mixture, with labels the tree has and labels it has not."""
    family = data.draw(st.sampled_from(sorted(UNFOLLOWED)))
    labels = LABELS.get(family, CODES)
    grammar = families.family(family).grammar
    lists = [answer for answer in grammar.answers if answer.list_prefix and "user" in answer.roles]
    written = [
        grammar.text(answer, named) + suffix
        for answer, count in itertools.product(lists, (1, 2))
        for named in itertools.permutations(labels, count)
        for suffix in grammar.answer_suffixes
    ]
    beside = [form % label for form in UNFOLLOWED[family] for label in labels]
    bare = [grammar.text(answer) for answer in grammar.answers if "user" in answer.roles]
    answers = data.draw(st.lists(st.sampled_from([*written, *beside, *bare]), min_size=1, max_size=6, unique=True))
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(answers), max_size=len(answers)))
    masses = {answer: weight / sum(weights) for answer, weight in zip(answers, weights, strict=True)}
    found, _ = bounds(family, labels, masses, "user", max_labels=data.draw(st.integers(1, 3)))
    for label, (low, high) in found.items():
        truth = sum(mass for answer, mass in masses.items() if names(label, answer))
        assert low <= truth + 1e-9
        assert truth <= high + 1e-9


def names(label: str, answer: str) -> bool:
    """Whether an answer names a label: as a word, not as the begin of a longer label."""
    longer = [other for other in (*CODES, *NAMES, "S14") if other.startswith(label) and other != label]
    for other in longer:
        answer = answer.replace(other, "")
    return label in answer


@pytest.mark.parametrize("family", ["llama-guard-2", "llama-guard-3", "nemotron", "qwen3guard"])
def test_a_verdict_without_a_list_is_a_verdict(family):
    """Llama Guard 4 was seen to answer `unsafe` and nothing else: that names no category, and is no riddle."""
    grammar = families.family(family).grammar
    bare = grammar.text(next(answer for answer in grammar.answers if answer.list_prefix and "user" in answer.roles))
    found, estimates = bounds(family, LABELS.get(family, CODES), {bare: 1.0}, "user")
    assert estimates.p_unsafe == pytest.approx(1.0)
    assert max(high for _, high in found.values()) == pytest.approx(0.0, abs=1e-9)
