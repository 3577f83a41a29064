"""Requests and policies: what is accepted, and what the refusal says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree import policy
from verdictree.conversation import MAX_BYTES, MAX_MESSAGES, Conversation, Message, parse
from verdictree.errors import InvalidConversation, InvalidPolicy


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "invalid JSON"),
        (b"{", "invalid JSON"),
        (b"[]", "expected `object`, got `array`"),
        (b"{}", "missing required field `messages`"),
        (b'{"messages": []}', "expected 1 to"),
        (b'{"messages": [{"role": "system", "content": "x"}]}', "'system'"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "expected `str`, got `int`"),
        (b'{"messages": [{"role": "user", "content": null}]}', "expected `str`, got `null`"),
        (b'{"messages": [{"role": "user", "content": " \\n "}]}', "messages\\[0\\].content, got an empty string"),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', "expected UTF-8"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "invalid JSON"),
        (b'{"messages": [{"role": "user", "content": "x", "name": "y"}]}', "unknown field `name`"),
        (b'{"messages": [{"role": "user", "content": "x"}], "truncate": "tail"}', "'tail'"),
    ],
)
def test_bad_request_is_named(body, said):
    """A caller must learn what was wrong, in one line, and nothing malformed may reach the guard."""
    with pytest.raises(InvalidConversation, match=said) as error:
        parse(body)
    assert "\n" not in str(error.value)


def test_requests_are_bounded():
    """Without bounds one caller could occupy the server with a single request."""
    many = Conversation(tuple(Message("user", "x") for _ in range(MAX_MESSAGES + 1)))
    with pytest.raises(InvalidConversation, match=f"got {MAX_MESSAGES + 1}"):
        parse(many.to_json())
    with pytest.raises(InvalidConversation, match="bytes"):
        parse(json.dumps({"messages": [{"role": "user", "content": "x" * MAX_BYTES}]}).encode())


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(min_size=1)), min_size=1, max_size=4))
def test_any_text_survives_the_wire(turns):
    """Control characters, astral code points and quotes must arrive as they were sent."""
    conversation = Conversation(tuple(Message(role, text + "x") for role, text in turns))
    try:
        body = conversation.to_json()
    except InvalidConversation:  # lone surrogates cannot be sent
        assert any("\ud800" <= c <= "\udfff" for _, text in turns for c in text)
    else:
        assert parse(body) == conversation


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "missing required field `version`"),
        ("name: [", "not valid YAML"),
        ("name: x\nversion: '1'\ncategories: []", "at least one category"),
        ("name: x\nversion: '1'\ncategories: [{code: A, name: a}, {code: A, name: b}]", "stands 2 times"),
        ("name: x\nversion: '1'\ncategories: [{code: 'A B', name: a}]", "one word"),
        ("name: x\nversion: '1'\ncategories: [{code: A, name: a, colour: red}]", "unknown field `colour`"),
    ],
)
def test_bad_policy_is_named(tmp_path, text, said):
    """A policy with a typo must not become a release that scores something else."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(InvalidPolicy, match=said) as error:
        policy.load(path)
    assert str(path) in str(error.value)


def test_missing_policy_is_named(tmp_path):
    """A wrong path should say so rather than show a traceback."""
    with pytest.raises(InvalidPolicy, match="no such policy file"):
        policy.load(tmp_path / "none.yaml")


def test_shipped_policies_load():
    """A policy in the repository that does not load would break the first command of the README."""
    paths = sorted(Path("policies").glob("*.yaml"))
    assert paths and all(policy.load(path).codes for path in paths)
