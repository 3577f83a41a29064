"""Every family's grammar on tokenizers that merge and split: its answers, and nothing else, carry probability."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from core.fake_lm import END, NOISE, WordTokenizer, explore

from verdictree import families
from verdictree.conversation import ROLES, Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import Question
from verdictree.policy import Category, Policy
from verdictree.verdict_tree.compiler import compile_tree
from verdictree.verdict_tree.estimates import one_by_one
from verdictree.verdict_tree.marginals import Marginalizer

MAX_LABELS = 2
CODES = ("S1", "S10", "S2")
NAMES = ("Violent", "Violent Crimes", "PII/Privacy")
WILDGUARD = ("harmful_request", "response_refusal", "harmful_response")
MERGES = {
    "characters": [],
    "words": ["safe", "unsafe", "Safe", "Unsafe", "Yes", "No", "yes", "no", '"}', '",', ", ", ",S", "10", "Violent"],
    "ends": ["2,", "y, ", 'y"', "s\n"],
    "halves": ["un", "sa", "Safety", "Cat", '": "', '"} ', "\nC", "\nH", "rim", " P", "\n\n", "es"],
}


def labels_of(family):
    if family.grammar.per_category:
        return ()
    return WILDGUARD if family.name == "wildguard" else CODES if family.grammar.labels_are == "code" else NAMES


def tokenizer_of(grammar, labels, merges):
    """One that merges so; `s` with the line break after it only where a name can end so, not a verdict text."""
    everything = [text for one in ROLES for text, *_ in enumerate_answers(grammar, labels, one)]
    pieces = {piece for piece in MERGES[merges] if grammar.labels_are == "name" or piece != "s\n"}
    return WordTokenizer(sorted({*pieces, *itertools.chain(*everything, grammar.separator)}))


def enumerate_answers(grammar, labels, role):
    """Every answer of up to MAX_LABELS labels: its text, what it names, and its verdict class."""
    for answer in grammar.answers:
        if role not in answer.roles:
            continue
        if answer.list_prefix is None:
            yield grammar.answer_prefix + answer.verdict_text, set(answer.names), answer.verdict_class
            continue
        for count in range(1, MAX_LABELS + 1):
            for named in itertools.product(labels, repeat=count):
                body = answer.verdict_text + answer.list_prefix + grammar.separator.join(named)
                for suffix in grammar.answer_suffixes:
                    yield grammar.answer_prefix + body + suffix, set(named), answer.verdict_class


class StringLM:
    """A distribution over whole token sequences, given; the next-token distributions follow from it."""

    def __init__(self, masses, size):
        self.masses, self.size = masses, size

    def probs(self, sequence):
        sequence = tuple(sequence)
        weights = np.full(self.size, 1e-30)
        for tokens, mass in self.masses.items():
            if tokens[: len(sequence)] == sequence and len(tokens) > len(sequence):
                weights[tokens[len(sequence)]] += mass
        return weights / weights.sum()

    def logits(self, sequence):
        return np.log(self.probs(sequence))


ASKED = [(one.name, role) for one in families.all_families() for role in one.grammar.roles]


@pytest.mark.parametrize("merges", MERGES)
@pytest.mark.parametrize(("name", "role"), ASKED)
def test_estimates_equal_the_distribution_over_answers(name, merges, role):
    """An answer that is no path of the tree, or two that share one, would shift the sums."""
    grammar, labels = families.family(name).grammar, labels_of(families.family(name))
    answers = list(enumerate_answers(grammar, labels, role))
    tokenizer = tokenizer_of(grammar, labels, merges)
    tree = compile_tree(grammar, labels, tokenizer, [END])
    rng = random.Random(name + merges + role)
    weights = [rng.random() ** 3 for _ in answers]
    noise = 0.1 * sum(weights)  # an answer that is no verdict
    total = sum(weights) + noise
    masses = {(*tokenizer(text), END): w / total for (text, *_), w in zip(answers, weights, strict=True)}
    assert len(masses) == len(answers), "two answers must not have the same tokens"
    lm = StringLM(masses | {(NOISE, END): noise / total}, tokenizer.size)

    estimates = Marginalizer(tree)(explore(lm, tree, MAX_LABELS), role)
    named = [sum(w for (_, n, _), w in zip(answers, weights, strict=True) if c in n) / total for c in labels]
    np.testing.assert_allclose(estimates.marginal, named, atol=1e-9)
    for verdict_class, mass in estimates.class_probabilities.items():
        expected = sum(w for (_, _, r), w in zip(answers, weights, strict=True) if r == verdict_class) / total
        assert mass == pytest.approx(expected, abs=1e-9)
    if all(len(suffix) == 1 for suffix in itertools.chain(*tree.answer_suffixes)):
        assert estimates.unexplored == pytest.approx(noise / total, abs=1e-9)
    assert estimates.unexplored >= noise / total - 1e-9
    assert estimates.off_grammar <= noise / total + 1e-9


@pytest.mark.parametrize("merges", ["words", "ends"])
@pytest.mark.parametrize(("name", "role"), ASKED)
def test_greedy_text_is_the_answer(name, merges, role):
    """The text that is shown must be what the guard would have written, suffixes included."""
    grammar, labels = families.family(name).grammar, labels_of(families.family(name))
    tokenizer = tokenizer_of(grammar, labels, merges)
    tree = compile_tree(grammar, labels, tokenizer, [END])
    answers = list(enumerate_answers(grammar, labels, role))
    for text, named, verdict_class in random.Random(0).sample(answers, min(6, len(answers))):
        lm = StringLM({(*tokenizer(text), END): 1.0}, tokenizer.size)
        greedy = Marginalizer(tree)(explore(lm, tree, MAX_LABELS + 1), role).greedy
        assert greedy.text(tree) == text.removeprefix(grammar.answer_prefix) and greedy.complete
        assert {tree.labels[step.label] for step in greedy.steps} == named
        assert greedy.unsafe == (verdict_class == "unsafe")


def test_answers_about_categories_one_by_one():
    """The worst category rules; a category that is not violated must not take another's score."""
    tokenizer = WordTokenizer(["Yes", "No"])
    tree = compile_tree(families.family("shieldgemma").grammar, (), tokenizer, [END])
    rows = []
    for p_yes in (0.2, 0.7):
        lm = StringLM({(*tokenizer("Yes"), END): p_yes, (*tokenizer("No"), END): 1 - p_yes}, tokenizer.size)
        rows.append(Marginalizer(tree)(explore(lm, tree, 1)))
    both = one_by_one(rows)
    assert both.marginal.tolist() == pytest.approx([0.2, 0.7])
    assert both.joint.tolist() == pytest.approx([0.0, 0.7])
    assert (both.p_unsafe, both.p_safe) == (pytest.approx(0.7), pytest.approx(0.3))
    assert both.greedy.text(tree) == "Yes" and [step.label for step in both.greedy.steps] == [1]


def test_prompts_of_ours_hold_the_policy():
    """A guard that is not told its categories answers with others."""
    policy = Policy("p", "1", (Category("S1", "One", "About one."), Category("S2", "Two")), "Be strict.")
    turns = [Message("user", "hi"), Message("assistant", "ho")]
    for name in ("instruct", "nemotron", "wildguard", "polyguard"):
        one = families.family(name)
        question = Question(policy, one.grammar.roles[-1])
        asked = turns[: 1 + (question.role == "assistant")]
        system = one.prompt.system(question) if hasattr(one.prompt, "system") else ""
        whole = system + one.prompt.before(question) + one.conversation.render(asked) + one.prompt.after(question)
        assert all(f"{message.content}\n\n" in whole for message in asked) and "{content}" not in whole
        assert name == "wildguard" or "S1: One." in whole
    assert "Be strict." in families.family("instruct").prompt.after(question)


def test_unknown_and_reasoning_families_are_refused():
    """A family that is almost right would ask a guard in a form that it never saw."""
    with pytest.raises(UnsupportedGuard, match=r"expected a guard family among .*llama-guard-3.*, got 'lama'"):
        families.family("lama")
    with pytest.raises(UnsupportedGuard, match="reasons in free text"):
        families.recognize("{% if think %}<think>{% endif %}{{ guardian_config['risk_name'] }}")
    judge = "judge{% if think %}{think}{% endif %}{{ guardian_config['criteria_id'] }}"
    assert families.recognize(judge).name == "granite-guardian-3.3"
    assert families.recognize("{{ messages }}").name == "instruct"
    assert families.recognize("{{ guardian_config.risk_name }}").name == "granite-guardian"
    for last, name in [("O6", "instruct"), ("O1", "llama-guard-1"), ("S11", "llama-guard-2"), ("S13", "llama-guard-3")]:
        codes = " ".join(f"S{i}" for i in range(1, int(last[1:]) + 1)) if last[0] == "S" else last
        assert families.recognize(f"{codes} <BEGIN CONVERSATION>").name == name
