"""Architectures that no published guard has, or has only with other tokens, through the real export.

Those of the published guards: `conformance/test_published_guards.py`. Here are small tokenizers and random weights.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_guard
import torch
from core.fake_lm import path_of
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from verdictree import families
from verdictree.conversation import Conversation, Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import Question
from verdictree.policy import Category, Policy
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree.exploration import Exploration
from verdictree_export.exporter import export_release
from verdictree_export.prompts import checkpoint
from verdictree_export.prompts.rendering import render

pytestmark = pytest.mark.slow

_END = "<|eot|><|header|>assistant<|/header|>"
_CHAT = (
    "{% for m in messages %}<|header|>{{ m.role }}<|/header|>{{ m.content }}<|eot|>{% endfor %}"
    "<|header|>assistant<|/header|>"
)
_TURNS = (
    "<|begin|>Check: S1: One, S2: Two, S10: Ten, Violent, Violent Acts, PII\n\n{%% for m in messages %%}"
    "{{ '%s' if m.role == 'user' else '%s' }}: {{ m.content | trim }}\n\n{%% endfor %%}END" + _END
)
_ONE = "<|begin|>{%% for m in messages %%}%s{%% endfor %%} Is it {{ %s }}?" + _END
CODES = Policy("codes", "1", (Category("S1", "One"), Category("S2", "Two"), Category("S10", "Ten")))
NAMED = Policy("names", "1", (Category("A", "Violent"), Category("B", "Violent Acts"), Category("C", "PII")))
MERGED = Policy(
    "merged", "1", (Category("A", "Acts (x)"), Category("B", "Violent"), Category("C", "PII")), roles=("user",)
)
THREE = tuple(Category(code, code) for code in ("harmful_request", "response_refusal", "harmful_response"))
LINES = (Policy("request", "1", THREE[:1], roles=("user",)), Policy("response", "1", THREE, roles=("assistant",)))
ONE_BY_ONE = Policy("rules", "1", (Category("harm", "Harm", "It hurts."), Category("bias", "Bias"), Category("x", "X")))
USERS_ONLY = Policy("users", "1", ONE_BY_ONE.categories[:2], roles=("user",))


@dataclass(frozen=True)
class Case:
    family: str
    config: Any
    template: str
    policies: tuple[Policy, ...]
    options: dict[str, Any] = field(default_factory=dict)
    max_labels: int = 1


ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama, rope scaling, tied head": Case(
        "nemotron",
        LlamaConfig,
        _CHAT,
        (msgspec.structs.replace(NAMED, roles=("assistant",)),),
        {
            "tie_word_embeddings": True,
            "max_position_embeddings": 1024,
            "rope_scaling": {**ROPE, "original_max_position_embeddings": 64},
        },
    ),
    "llama, a name that merges with the comma after it": Case(
        "nemotron",
        LlamaConfig,
        _CHAT,
        (MERGED,),
        {"max_position_embeddings": 1024, "corpus": ["(x),"] * 40},
        max_labels=2,
    ),
    "qwen 2, query, key and value bias": Case("instruct", Qwen2Config, _CHAT, (CODES,), max_labels=2),
    "mistral, sliding window": Case(
        "wildguard",
        MistralConfig,
        "",
        LINES,
        {"sliding_window": 24, "max_position_embeddings": 1024, "head_dim": 8},
    ),
    "gemma 2, soft-capped": Case(
        "shieldgemma",
        Gemma2Config,
        "<|begin|>Human Question: {{ messages[-1].content | trim }}\n Is it {{ guideline }}?" + _END,
        (USERS_ONLY,),
        {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    ),
    "gemma 3, local and global layers": Case(
        "llama-guard-2",
        Gemma3TextConfig,
        _TURNS % ("User", "Agent"),
        (CODES,),
        {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 20},
    ),
    "granite, multipliers": Case(
        "granite-guardian",
        GraniteConfig,
        _ONE
        % (
            "{{ 'User Message: ' if m.role == 'user' else 'Assistant Message: ' }}{{ m.content | trim }}"
            "{{ '\n\n' if m.role == 'user' }}",
            "guardian_config['risk_name']",
        ),
        (ONE_BY_ONE, USERS_ONLY),
        {"logits_scaling": 3.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.3},
    ),
}
TURNS = (Message("user", "hello? 12"), Message("assistant", "No: I can't."))


def reach(guard, ids, answer):
    """p(answer | prompt), each token by the checkpoint's own run over the whole sequence."""
    with torch.inference_mode():
        output = guard.model(torch.tensor([[*ids, *answer]]), logits_to_keep=len(answer) + 1)
    log_probs = torch.log_softmax(output.logits[0, :-1].double(), -1)
    return float(log_probs[range(len(answer)), list(answer)].sum().exp())


def enumerate_marginals(guard, tree, ids, role, max_labels):
    """What the answer names, by a run of the checkpoint for each word and each list of up to `max_labels` labels."""
    answers, num_labels = tree.grammar.answers, len(tree.labels)
    marginal = dict.fromkeys(tree.labels, 0.0)
    for answer, verdict in zip(answers, tree.verdict_tokens, strict=True):
        for name in answer.names if role in answer.roles else ():
            marginal[name] += reach(guard, ids, verdict)
    for number, a in enumerate(tree.lists):
        paths = itertools.chain(*(itertools.product(range(num_labels), repeat=n) for n in range(1, max_labels + 1)))
        for named in paths if role in answers[a].roles else ():
            if named[-1] not in named[:-1]:
                tokens = tree.path_tokens(path_of(tree, named, number))
                ends = tree.after_class(tree.continuation_class[named[-1]]).follow_set
                marginal[tree.labels[named[-1]]] += sum(reach(guard, ids, [*tokens, end]) for end in ends)
    return marginal


def rulings(guard, tree, ids, role):
    ruled = zip(tree.grammar.answers, tree.verdict_tokens, strict=True)
    masses = [(answer.verdict_class, reach(guard, ids, verdict)) for answer, verdict in ruled if role in answer.roles]
    return {name: sum(p for other, p in masses if other == name) for name, _ in masses}


@pytest.mark.parametrize("name", CASES)
def test_marginals_equal_enumeration_by_the_checkpoint(name, tmp_path):
    """An architecture's own attention, rotary embedding or LM head that the graph does not do would change them."""
    case = CASES[name]
    folder = tiny_guard.write_checkpoint(tmp_path / "checkpoint", case.config, case.template, **case.options)
    release = export_release(
        str(folder),
        case.family,
        case.policies,
        tmp_path / "models",
        exploration=Exploration(case.max_labels, 0.0, 64),
        max_off_grammar=1.0,
    )
    assert release.parity.max_abs_log_prob_difference < 1e-3
    offline, guard = LocalGuard.load(tmp_path / "models", 1, threads=1), checkpoint.load(str(folder))
    family, tree = families.family(case.family), release.tree
    asked = [(p, TURNS[: 1 + (role == "assistant")]) for p in case.policies for role in p.roles]
    verdicts = offline.classify([Conversation(turns, policy=policy.name) for policy, turns in asked])
    for (policy, turns), verdict in zip(asked, verdicts, strict=True):
        role = turns[-1].role
        questions = policy.categories if family.grammar.per_category else (None,)
        prompts = [
            render(guard, family, release.conversation, Question(policy, role, one), list(turns)) for one in questions
        ]
        ruled = [rulings(guard, tree, guard.encode(text), role) for text in prompts]
        # Random weights leave the verdicts little probability: only their logarithms can be compared.
        expected = [max(one["unsafe"] for one in ruled), min(one["safe"] for one in ruled)]
        np.testing.assert_allclose(np.log([verdict.p_unsafe, verdict.p_safe]), np.log(expected), atol=1e-2)
        if family.grammar.per_category:
            marginal = dict(zip(policy.codes, (one["unsafe"] for one in ruled), strict=True))
        else:
            marginal = enumerate_marginals(guard, tree, guard.encode(prompts[0]), role, case.max_labels)
            marginal = {c.code: marginal[family.grammar.label(c)] for c in policy.categories}
        got = np.log([score.marginal for score in verdict.categories])
        np.testing.assert_allclose(got, np.log(list(marginal.values())), atol=1e-2)
        assert [score.code for score in verdict.categories] == list(policy.codes)


def test_a_question_that_the_guard_does_not_answer_is_refused(tmp_path):
    """A score of 0 for what a guard was never asked would read as a judgement."""
    folder = tiny_guard.write_checkpoint(tmp_path / "c", template="")
    both = Policy("both", "1", THREE)
    with pytest.raises(UnsupportedGuard, match="answers for messages of role user, got response_refusal"):
        export_release(str(folder), "wildguard", [both], tmp_path / "models")
