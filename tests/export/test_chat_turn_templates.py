"""Moderation templates in which each message is a turn of the chat, between control tokens."""

from __future__ import annotations

import itertools

import pytest
import tiny_guard
from hypothesis import given, settings
from hypothesis import strategies as st

from verdictree import families
from verdictree.conversation import Message
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import Question
from verdictree.runtime.encoded_text import token_ids
from verdictree_export.prompts import checkpoint
from verdictree_export.prompts.compilation import compile_prompts
from verdictree_export.prompts.rendering import render

pytestmark = pytest.mark.slow

FAMILY = families.family("llama-guard-3")
WHOLE = (
    "<|begin|><|header|>system<|/header|>\n\nCheck the messages below.\n{% for code in categories %}{{ code }}: "
    "{{ categories[code] }}\n{% endfor %}<|eot|>{% for m in messages %}TURN{% endfor %}<|header|>judge<|/header|>"
    "Assess the last message of the {{ messages[-1].role }}.<|eot|><|header|>assistant<|/header|>"
)
# The turn in the template, and what is found of a user's turn.
TURNS = {
    "a name between tokens": (
        "<|header|>{{ m.role }}<|/header|>\n\n{{ m.content }}<|eot|>",
        "<|header|>user<|/header|>\n\n{content}<|eot|>",
    ),
    "a name after a token": (
        "<|header|>{{ m.role }}\n{{ m.content | trim }}<|eot|>\n",
        "<|header|>user\n{content}<|eot|>\n",
    ),
    "words of the family in a turn": (
        "<|header|>{{ 'User' if m.role == 'user' else 'Agent' }}: {{ m.content }}<|eot|>",
        "User: {content}<|eot|><|header|>",
    ),
}


@pytest.fixture(scope="module")
def guards(tmp_path_factory):
    """Checkpoints behind each template, and what is compiled of them."""
    made = {}
    for name, (turn, _) in TURNS.items():
        folder = tmp_path_factory.mktemp("chat") / "checkpoint"
        tiny_guard.write_checkpoint(folder, template=WHOLE.replace("TURN", turn))
        guard = checkpoint.load_weightless(str(folder))
        made[name] = guard, compile_prompts(guard, FAMILY, [tiny_guard.POLICY])
    return made


@pytest.mark.parametrize("name", TURNS)
def test_the_turns_are_found(guards, name):
    """A guard that marks turns by control tokens is refused, or its marks are served as text."""
    _, compiled = guards[name]
    assert compiled.conversation.turns["user"] == TURNS[name][1]
    assert "<|eot|>" in compiled.conversation.control_tokens
    assert compiled.conversation.trims == ("trim" in TURNS[name][0]) and not compiled.conversation.reads


TEXTS = st.lists(
    st.sampled_from(["hello", " ", "\n", "\n\n", "12", "?!", "🙂", "é", "User: x", "user", "<", "|"]), max_size=5
)


@settings(max_examples=100)
@given(st.sampled_from(sorted(TURNS)), st.lists(TEXTS.map(lambda parts: "".join(parts) + "x"), min_size=1, max_size=4))
def test_served_tokens_are_the_whole_prompts_tokens(guards, name, texts):
    """Tokens that merge across a turn's mark would be read differently than they were trained."""
    guard, compiled = guards[name]
    messages = [Message(role, text) for role, text in zip(itertools.cycle(["user", "assistant"]), texts, strict=False)]
    (prompt,) = (one for one in compiled.prompts if one.role == messages[-1].role)
    whole = render(guard, FAMILY, compiled.conversation, Question(tiny_guard.POLICY, prompt.role), messages)
    served = token_ids(compiled.tokenizer, prompt.marked(compiled.conversation.marked(messages)))
    assert [*prompt.prefix_ids, *served, *prompt.suffix_ids] == guard.encode(whole)


@pytest.mark.parametrize(
    "turn", ["{{ m.role }}> {{ m.content }}\n", "<|header|>Says {{ m.role }}: {{ m.content }}<|eot|>"]
)
def test_other_marks_are_still_refused(tmp_path, turn):
    """Words that nobody quotes would mark turns, and every message could spell them."""
    folder = tiny_guard.write_checkpoint(tmp_path / "checkpoint", template=WHOLE.replace("TURN", turn))
    with pytest.raises(UnsupportedGuard, match="it marks turns otherwise"):
        compile_prompts(checkpoint.load_weightless(str(folder)), FAMILY, [tiny_guard.POLICY])


def test_roles_that_a_family_does_not_judge_are_refused(tmp_path):
    """PolyGuard's verdict on a response stands behind a list: it would be reported as far as one path leads to it."""
    folder = tiny_guard.write_checkpoint(
        tmp_path / "checkpoint", template="{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(UnsupportedGuard, match=r"judges messages of role user only; give the policy `roles: \[user\]`"):
        compile_prompts(checkpoint.load_weightless(str(folder)), families.family("polyguard"), [tiny_guard.POLICY])
