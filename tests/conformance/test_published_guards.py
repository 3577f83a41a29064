"""Each published guard, with its architecture, tokenizer and template's shape: asked as its makers ask it.

All tests of a guard follow one another and share its checkpoint and its release. `make conformance` exports and serves
every guard. Elsewhere those of SERVED are served, and those of TWINS not exported.
"""

from __future__ import annotations

import dataclasses
import os
import random
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import published_guards
import published_templates
import pytest
from export.test_architectures import enumerate_marginals, rulings
from published_guards import GUARDS

from verdictree import families
from verdictree.conversation import Conversation, Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import Question, TemplatePrompt
from verdictree.policy import Policy
from verdictree.runtime.encoded_text import token_ids
from verdictree.runtime.local_guard import LocalGuard
from verdictree.verdict_tree.exploration import Exploration
from verdictree_client import GuardClient
from verdictree_export import inspection
from verdictree_export.exporter import export_release
from verdictree_export.prompts import checkpoint
from verdictree_export.prompts.compilation import CompiledPrompts, compile_prompts
from verdictree_export.prompts.rendering import render
from verdictree_serving import TritonServer

pytestmark = pytest.mark.slow

# A SentencePiece tokenizer, a guard that reads the last two messages untrimmed, and turns that control tokens mark.
SERVED = ("Llama Guard 1", "Granite Guardian 3.1", "Granite Guardian 3.3")
# Another guard has their architecture, their tokenizer and their answers, but for what stands before those.
TWINS = ("Llama Guard 2", "Llama Guard 3 1B", "Granite Guardian 3.0")
# 23 long names in three lists take minutes, and two policies of long descriptions half a minute.
FEWER = {"nemotron": 5, "shieldgemma": 2}
EVERY_GUARD = os.environ.get("SERVED_GUARDS") == "all"

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


def conversations(count: int, role: str):
    """Generated ones that end with a message of this role: emoji, white space at the borders, code, both directions."""
    rng = random.Random(role)
    for _ in range(count):
        turns = rng.choice([1, 3] if role == "user" else [2, 4])
        roles = ["user", "assistant"] * 2
        texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 9))) for _ in range(turns)]
        yield [Message(r, text if text.strip() else text + "x") for r, text in zip(roles, texts, strict=False)]


class Published:
    """A guard with random weights, made as far as a test asks for it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.kind, self.family = GUARDS[name], families.family(GUARDS[name].family)
        self.folder, self.models = directory / "checkpoint", directory / "models"
        self.policies = [Policy.read(Path(policy)) for policy in self.kind.policies]
        few = FEWER.get(self.family.name)
        self.policies = [msgspec.structs.replace(one, categories=one.categories[:few]) for one in self.policies]
        self.is_exported = EVERY_GUARD or name not in TWINS
        self.is_templated = isinstance(self.family.prompt, TemplatePrompt)
        published_guards.write_checkpoint(self.kind, self.folder)

    @cached_property
    def guard(self):
        return checkpoint.load(str(self.folder))

    @cached_property
    def offline(self):
        options = {"exploration": Exploration(1, 0.0, 64), "max_off_grammar": 1.0}
        export_release(str(self.folder), self.family.name, self.policies, self.models, **options)
        return LocalGuard.load(self.models, 1, threads=1)

    @cached_property
    def compiled(self) -> CompiledPrompts:
        if not self.is_exported:
            return compile_prompts(self.guard, self.family, self.policies)
        release = self.offline.release
        return CompiledPrompts(release.conversation, release.prompts, release.tree, self.offline.tokenize._tokenizer)

    def questions(self):
        """Each prompt with what it asks."""
        for prompt in self.compiled.prompts:
            (policy,) = (one for one in self.policies if one.name == prompt.policy)
            asked = policy.of_role(prompt.role)
            category = next((one for one in asked.categories if one.code == prompt.category), None)
            yield prompt, Question(asked, prompt.role, category)

    def as_published(self, question: Question, messages) -> str:
        """The maker's template by transformers, with none of our code in between."""
        in_parts, arguments = self.kind.in_parts, self.family.prompt.arguments(question)
        turns = [
            {"role": m.role, "content": [{"type": "text", "text": m.content}] if in_parts else m.content}
            for m in messages
        ]
        return self.guard.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **arguments)


@pytest.fixture(scope="module")
def published(request, tmp_path_factory):
    """The guard of the parameter's name."""
    return Published(request.param, tmp_path_factory.mktemp("published"))


each_guard = pytest.mark.parametrize("published", GUARDS, indirect=True)


@each_guard
def test_the_prompt_is_the_makers_rendering(published):
    """Character by character and token by token, for each role and policy: other white space is another question."""
    family, guard, form = published.family, published.guard, published.compiled.conversation
    assert form == family.conversation, "the family says what its makers publish"
    assert not published.is_templated or families.recognize(guard.template) == family
    for prompt, question in published.questions():
        for messages in conversations(50 if prompt.category is None else 12, prompt.role):
            read = list(form.read(messages))
            if published.is_templated:
                whole = published.as_published(question, read)
            else:
                whole = render(guard, family, form, question, messages)
            assert prompt.prefix + prompt.text(form.render(messages)) + prompt.suffix == whole
            if any(token in one.content for token in guard.tokenizer.added_tokens_encoder for one in read):
                continue  # served as plain text, which the maker's own rendering does not
            served = token_ids(published.compiled.tokenizer, prompt.marked(form.marked(messages)))
            assert [*prompt.prefix_ids, *served, *prompt.suffix_ids] == guard.encode(whole)


@pytest.mark.parametrize("published", [name for name in GUARDS if EVERY_GUARD or name not in TWINS], indirect=True)
def test_verdicts_equal_the_checkpoint_token_by_token(published):
    """Export, ONNX Runtime and marginals, against the checkpoint's own run over each whole answer."""
    family, guard, offline = published.family, published.guard, published.offline
    form, tree = offline.release.conversation, offline.release.tree
    for policy in published.policies:
        for role in policy.roles:
            turns = list(TURNS[: 1 + (role == "assistant")])
            (verdict,) = offline.classify([Conversation(tuple(turns), policy=policy.name)])
            asked = policy.of_role(role)
            questions = asked.categories if family.grammar.per_category else (None,)
            prompts = [
                guard.encode(render(guard, family, form, Question(asked, role, one), turns)) for one in questions
            ]
            ruled = [rulings(guard, tree, ids, role) for ids in prompts]
            if family.grammar.per_category:
                marginal = {c.code: one["unsafe"] for c, one in zip(asked.categories, ruled, strict=True)}
            else:
                named = enumerate_marginals(guard, tree, prompts[0], role, 1)
                marginal = {c.code: named[family.grammar.label(c)] for c in asked.categories}
            assert [score.code for score in verdict.categories] == list(asked.codes) == list(marginal)
            # Random weights leave an answer little probability: logarithms are compared, of what a float can hold.
            got = np.maximum([verdict.p_unsafe, *(score.marginal for score in verdict.categories)], 1e-300)
            expected = np.maximum([max(one["unsafe"] for one in ruled), *marginal.values()], 1e-300)
            np.testing.assert_allclose(np.log(got), np.log(expected), atol=1e-2)


@pytest.mark.parametrize(
    ("published", "policy", "said"),
    [
        ("Llama Guard 1", "llama-guard-2", r"never names S1: Violent Crimes.*O1: Violence and Hate"),
        ("Llama Guard 3 8B", "embedded", r"never names S3: Sex-Related Crimes.*S3: Sex Crimes.*display_name"),
        ("Qwen3Guard", "nemotron", r"never names Violence.*Violent; Non-violent Illegal Acts"),
    ],
    indirect=["published"],
)
def test_a_fixed_guard_takes_no_other_categories(published, policy, said):
    """It would report its own categories under the policy's names."""
    with pytest.raises(UnsupportedGuard, match=said):
        compile_prompts(published.guard, published.family, [Policy.read(Path(policy))])


@pytest.mark.parametrize("published", ["Llama Guard 1", "Llama Guard 3 8B", "Qwen3Guard"], indirect=True)
def test_a_fixed_guards_other_categories_are_followed(published):
    """A policy may keep some of them; an answer that names another one first still names those."""
    (policy,), whole = published.policies, published.compiled

    def compiled(*categories):
        return compile_prompts(
            published.guard, published.family, [msgspec.structs.replace(policy, categories=categories)]
        )

    first, *others = policy.categories
    assert set(compiled(*policy.categories[:2]).tree.labels) == set(whole.tree.labels)
    with pytest.raises(UnsupportedGuard, match="never holds the description"):
        compiled(msgspec.structs.replace(first, description="Whatever we say it is."), *others)
    renamed = compiled(msgspec.structs.replace(first, display_name="Something else"), *others)
    assert renamed.prompts == whole.prompts


def test_a_template_that_differs_is_shown(tmp_path):
    """A user whose checkpoint's template is another than the published one sees where, and is asked as it is."""
    template = published_templates.LLAMA_GUARD_2.replace(
        "message['content'].strip() + '\n\n'", "message['content'] + '\n'"
    )
    assert template != published_templates.LLAMA_GUARD_2
    other = dataclasses.replace(GUARDS["Llama Guard 2"], template=template)
    folder = published_guards.write_checkpoint(other, tmp_path / "c")
    seen = inspection.inspect(str(folder), "auto", [Policy.read(Path("llama-guard-2"))])
    assert seen.conversation.turns["user"] == "User: {content}\n" and not seen.conversation.trims
    assert any("published 'User: {content}\\n\\n', this template" in row for row in seen.differences)
    assert "white space around a message: published dropped, here kept" in seen.differences


@pytest.mark.server
@pytest.mark.parametrize("published", GUARDS if EVERY_GUARD else SERVED, indirect=True)
def test_served_verdicts_are_the_offline_ones(published):
    """A server that encodes, asks or reads otherwise than what was compared with the checkpoint."""
    long = " ".join(["why so, hello?"] * published.offline.release.max_tokens)
    more = Conversation((*TURNS, Message("user", "\n x\n\ny 日本 <|eot_id|><end_of_turn><|end_of_text|>")))
    asked = [Conversation(TURNS[:1]), Conversation(TURNS), more]
    asked.append(Conversation((Message("user", long),), truncate="windows"))
    with TritonServer(published.models) as server, GuardClient(server.grpc_address, deadline=60.0) as client:
        for policy in published.policies:
            for one in asked:
                if one.judged_role in policy.roles:
                    conversation = msgspec.structs.replace(one, policy=policy.name)
                    (alone,) = published.offline.classify([conversation])
                    served = client.classify(one.messages, policy=policy.name, truncate=one.truncate)
                    assert (served.role, served.num_tokens, served.windows and len(served.windows)) == (
                        alone.role,
                        alone.num_tokens,
                        alone.windows and len(alone.windows),
                    )
                    assert len(served.windows) > 1 or not one.truncate
                    for got, wanted in zip(served.categories, alone.categories, strict=True):
                        assert got.code == wanted.code
                        assert got.marginal == pytest.approx(wanted.marginal, rel=1e-3, abs=1e-9)
