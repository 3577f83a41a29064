"""Each published guard, with its architecture, tokenizer and template's shape: asked as its makers ask it."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import msgspec
import numpy as np
import published_guards
import pytest
from export.test_architectures import enumerate_marginals, rulings
from published_guards import GUARDS

from verdictree import families
from verdictree.conversation import Conversation, Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import Question, TemplatePrompt
from verdictree.policy import Policy
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree.exploration import Exploration
from verdictree_client import GuardClient
from verdictree_export import inspection
from verdictree_export.exporter import export_release
from verdictree_export.prompts import checkpoint
from verdictree_export.prompts.rendering import render
from verdictree_export.prompts.split import served_tokenizer
from verdictree_serving import TritonServer

pytestmark = pytest.mark.slow

PIECES = [
    *("Hello", "how do I", "12 345", "?", "…", "S1", "safe", "unsafe\nS1", "<b>", "{{ x }}", "a, b", "I'm", "e\u0301"),
    *(
        "🙂",
        "👩‍👩‍👧",
        "日本語",
        "مرحبا بالعالم",
        "שלום",
        "def f(x):\n    return x",
        "```\ncode\n```",
        "\n\n\n",
        "\t",
        "  ",
    ),
    *(" ", "\n", "\r\n", "\u00a0", "\u200b", "</s>", "<|eot_id|>", "<start_of_turn>", "[INST]", "<END CONVERSATION>"),
]
TURNS = (Message("user", "hello? 12 🙂"), Message("assistant", "No: I can't. "))
TEMPLATED = [name for name, guard in GUARDS.items() if guard.template and guard.family != "nemotron"]


def conversations(count: int, role: str):
    """Generated ones that end with a message of this role: emoji, white space at the borders, code, both directions."""
    rng = random.Random(role)
    for _ in range(count):
        turns = rng.choice([1, 3] if role == "user" else [2, 4])
        roles = ["user", "assistant"] * 2
        texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 9))) for _ in range(turns)]
        yield [Message(r, text if text.strip() else text + "x") for r, text in zip(roles, texts, strict=False)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Each guard's folder, written once."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            directory = tmp_path_factory.mktemp("published") / "checkpoint"
            written[name] = published_guards.write_checkpoint(GUARDS[name], directory)
        return written[name]

    return folder


def policies(name: str) -> list[Policy]:
    return [Policy.read(Path(policy)) for policy in GUARDS[name].policies]


def as_published(name: str, guard, family, question: Question, messages) -> str:
    """The maker's template by transformers, with none of our code in between."""
    in_parts = GUARDS[name].in_parts
    turns = [
        {"role": m.role, "content": [{"type": "text", "text": m.content}] if in_parts else m.content} for m in messages
    ]
    arguments = family.prompt.arguments(question)
    return guard.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments)


@pytest.mark.parametrize("name", TEMPLATED)
def test_the_prompt_is_the_makers_rendering(name, checkpoints):
    """Character by character and token by token, for each role and policy: other white space is another question."""
    seen = inspection.inspect(str(checkpoints(name)), "auto", policies(name))
    guard, family = seen.guard, seen.family
    assert family.name == GUARDS[name].family and isinstance(family.prompt, TemplatePrompt)
    assert seen.conversation == family.conversation, "the family says what its makers publish"
    tokenizer = served_tokenizer(guard)
    for prompt in seen.prompts:
        (policy,) = (one for one in policies(name) if one.name == prompt.policy)
        asked = policy.of_role(prompt.role)
        question = Question(asked, prompt.role, next((c for c in asked.categories if c.code == prompt.category), None))
        for messages in conversations(50 if prompt.category is None else 12, prompt.role):
            read = list(seen.conversation.read(messages))
            whole = as_published(name, guard, family, question, read)
            text = prompt.text(seen.conversation.render(messages))
            assert prompt.prefix + text + prompt.suffix == whole
            if any(token in text for token in guard.tokenizer.added_tokens_encoder):
                continue  # served as plain text, which the maker's own rendering does not
            served = tokenizer.encode(text, add_special_tokens=False).ids
            assert [*prompt.prefix_ids, *served, *prompt.suffix_ids] == guard.encode(whole)


@pytest.mark.parametrize("name", GUARDS)
def test_verdicts_equal_the_checkpoint_token_by_token(name, checkpoints, tmp_path):
    """inspect, export, ONNX Runtime and marginals, against the checkpoint's own run over each whole answer."""
    kind, folder = GUARDS[name], checkpoints(name)
    family, asked_by = families.family(kind.family), policies(name)
    if kind.family == "nemotron":  # 23 long names in three lists take minutes
        asked_by = [msgspec.structs.replace(one, categories=one.categories[:5]) for one in asked_by]
    release = export_release(
        str(folder), kind.family, asked_by, tmp_path, exploration=Exploration(1, 0.0, 64), max_off_grammar=1.0
    )
    offline, guard = LocalGuard.load(tmp_path, 1, threads=1), checkpoint.load(str(folder))
    for policy in asked_by:
        for role in policy.roles:
            turns = list(TURNS[: 1 + (role == "assistant")])
            (verdict,) = offline.classify([Conversation(tuple(turns), policy=policy.name)])
            asked = policy.of_role(role)
            questions = asked.categories if family.grammar.per_category else (None,)
            prompts = [
                guard.encode(render(guard, family, release.conversation, Question(asked, role, one), turns))
                for one in questions
            ]
            ruled = [rulings(guard, release.tree, ids, role) for ids in prompts]
            if family.grammar.per_category:
                marginal = {c.code: one["unsafe"] for c, one in zip(asked.categories, ruled, strict=True)}
            else:
                named = enumerate_marginals(guard, release.tree, prompts[0], role, 1)
                marginal = {c.code: named[family.grammar.label(c)] for c in asked.categories}
            assert [score.code for score in verdict.categories] == list(asked.codes) == list(marginal)
            # Random weights leave an answer little probability: logarithms are compared, of what a float can hold.
            got = np.maximum([verdict.p_unsafe, *(score.marginal for score in verdict.categories)], 1e-300)
            expected = np.maximum([max(one["unsafe"] for one in ruled), *marginal.values()], 1e-300)
            np.testing.assert_allclose(np.log(got), np.log(expected), atol=1e-2)


@pytest.mark.parametrize(
    ("name", "policy", "said"),
    [
        (
            "Llama Guard 3 8B",
            "policies/embedded.yaml",
            r"never names S3: Sex-Related Crimes.*S3: Sex Crimes.*display_name",
        ),
        ("Llama Guard 1", "policies/llama-guard-2.yaml", r"never names S1: Violent Crimes.*O1: Violence and Hate"),
        ("Qwen3Guard", "policies/nemotron.yaml", r"never names Violence.*Violent; Non-violent Illegal Acts"),
    ],
)
def test_a_fixed_guard_takes_no_other_categories(name, policy, said, checkpoints):
    """It would report its own categories under the policy's names."""
    with pytest.raises(UnsupportedGuard, match=said):
        inspection.inspect(str(checkpoints(name)), "auto", [Policy.read(Path(policy))])


@pytest.mark.parametrize("name", ["Llama Guard 3 8B", "Qwen3Guard", "Llama Guard 1"])
def test_a_fixed_guards_other_categories_are_followed(name, checkpoints):
    """A policy may keep some of them; an answer that names another one first still names those."""
    (policy,) = policies(name)
    kept = msgspec.structs.replace(policy, categories=policy.categories[:2])
    seen, whole = (inspection.inspect(str(checkpoints(name)), "auto", [one]) for one in (kept, policy))
    assert set(seen.tree.labels) == set(whole.tree.labels)
    described = msgspec.structs.replace(policy.categories[0], description="Whatever we say it is.")
    redefined = msgspec.structs.replace(policy, categories=(described, *policy.categories[1:]))
    with pytest.raises(UnsupportedGuard, match="never holds the description"):
        inspection.inspect(str(checkpoints(name)), "auto", [redefined])
    shown = msgspec.structs.replace(policy.categories[0], display_name="Something else")
    renamed = msgspec.structs.replace(policy, categories=(shown, *policy.categories[1:]))
    assert inspection.inspect(str(checkpoints(name)), "auto", [renamed]).prompts == whole.prompts


def test_a_template_that_differs_is_shown(tmp_path):
    """A user whose checkpoint's template is another than the published one sees where, and is asked as it is."""
    template = published_guards.LLAMA_GUARD_2.replace(
        "message['content'].strip() + '\\n\\n'", "message['content'] + '\\n'"
    )
    template = template.replace("message['content'].strip() + '\n\n'", "message['content'] + '\n'")
    assert template != published_guards.LLAMA_GUARD_2
    other = dataclasses.replace(GUARDS["Llama Guard 2"], template=template)
    seen = inspection.inspect(
        str(published_guards.write_checkpoint(other, tmp_path / "c")), "auto", policies("Llama Guard 2")
    )
    assert seen.conversation.turns["user"] == "User: {content}\n" and not seen.conversation.trims
    assert any("published 'User: {content}\\n\\n', this template" in row for row in seen.differences)
    assert "white space around a message: published dropped, here kept" in seen.differences


def test_turns_that_control_tokens_mark_are_refused(checkpoints):
    """Served text holds no control token, so ShieldGemma's question and response cannot stand in one conversation."""
    (policy,) = policies("ShieldGemma")
    both = msgspec.structs.replace(policy, roles=("user", "assistant"))
    with pytest.raises(UnsupportedGuard, match=r"control token '<(start|end)_of_turn>'.*leave assistant out"):
        inspection.inspect(str(checkpoints("ShieldGemma")), "auto", [both])


@pytest.mark.server
@pytest.mark.parametrize("name", ["Llama Guard 1", "Granite Guardian 3.1"])
def test_served_verdicts_are_the_offline_ones(name, checkpoints, tmp_path):
    """A SentencePiece tokenizer, and a guard that reads the last two messages untrimmed, on the real server."""
    export_release(str(checkpoints(name)), GUARDS[name].family, policies(name), tmp_path, max_off_grammar=1.0)
    asked = [Conversation(TURNS), Conversation(TURNS[:1]), Conversation((*TURNS, Message("user", "\n x\n\ny 日本")))]
    expected = [LocalGuard.load(tmp_path, 1, threads=1).classify([conversation])[0] for conversation in asked]
    with TritonServer(tmp_path) as server, GuardClient(server.grpc_address) as client:
        for conversation, verdict in zip(asked, expected, strict=True):
            served = client.classify(conversation.messages)
            assert served.role == verdict.role and served.num_tokens == verdict.num_tokens
            for got, wanted in zip(served.categories, verdict.categories, strict=True):
                assert got.code == wanted.code and got.marginal == pytest.approx(wanted.marginal, rel=1e-3, abs=1e-9)
