"""Requests and policies: what is accepted, and what the refusal says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree import shipped_policies
from verdictree.conversation import MAX_BYTES, MAX_MESSAGES, Conversation, Message, parse
from verdictree.errors import InvalidConversation, InvalidPolicy
from verdictree.policy import Policy

# Nine times nine times nine …: a few hundred bytes that are a billion values.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghi")
)
HEAD = "name: x\nversion: '1'\ncategories:\n"


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
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "lone surrogate"),
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
    ("text", "line", "said"),
    [
        ("", 1, "Expected `object`, got `null`"),
        ("name: x", 1, "missing required field `version`"),
        ("name: x\nversion: [", 2, "not valid YAML"),
        ("name: \x07", 1, "not valid YAML"),
        ("name: x\nversion: '1'\ncategories: []", 3, "at least one category"),
        ("name: x\nversion: 1\ncategories: []", 2, "Expected `str`, got `int`.*in quotes"),
        (f"{HEAD}- {{code: NO, name: a}}", 4, "Expected `str`, got `bool`.*in quotes"),
        (f"{HEAD}- {{code: A, name: a, threshold: 0,5}}", 4, "got 'threshold: 0,5'; a decimal point is a dot"),
        (f"{HEAD}- code: A\n  name: a\n  threshold: 0,5", 6, "decimal point"),
        ("name: x\nversion: '1'\ncategories: &a [*a]", 3, r"alias \*a stands for what it is a part of"),
        ("[" * 100_000, 1, "at most 32 levels"),
        ("{a: " * 100_000, 1, "at most 32 levels"),
        ("- " * 100_000, 1, "at most 32 levels"),
        (BOMB, 6, "at most 100000 values"),
        (f"{HEAD}- {{code: A, name: a, ? [b]: c}}", 4, "expected a word as a key"),
        ("name: !!float x", 1, "value that can be read, got 'x'"),
        ("name: x\nversion: 2020-13-45", 2, "value that can be read, got '2020-13-45'"),
        ("name: x\nversion: " + "9" * 5000, 2, "value that can be read"),
        ("name: !!timestamp x", 1, "value that can be read"),
        ("name: !!python/object:os.system x", 1, "not valid YAML"),
        ("? " + "x" * 500_000 + "\n: 1", 2, "unknown field"),
        ("name: x y\nversion: '1'\ncategories: [{code: A, name: a}]", 1, "one word"),
        (f"{HEAD}- {{code: A, name: a}}\n- {{code: A, name: b}}", 5, "stands 2 times"),
        (f"{HEAD}- {{code: 'A B', name: a}}", 4, "one word"),
        (f"{HEAD}- {{code: A, name: ' '}}", 4, "expected a name for category 'A'"),
        (f"{HEAD}- code: A\n  name: a\n  colour: red", 6, "unknown field `colour`"),
        (f"{HEAD}- code: A\n  name: a\n  threshold: 1.5", 6, "Expected `float` <= 1.0"),
        (f"{HEAD}- code: A\n  name: a\n  calibrated: maybe", 6, "Expected `bool`"),
        (f"{HEAD}- code: A\n  name: a\n  code: B", 6, "the key 'code' stands twice"),
        (f'{HEAD}- {{code: A, name: "a\\ud800b"}}', 4, r"without control characters, got \\ud800"),
        (f'{HEAD}- {{code: A, name: a}}\ninstructions: "x\\eb"', 5, r"without control characters, got \\x1b"),
        (f"{HEAD}- {{code: A, name: a}}\nroles: [user, user]", 5, "expected roles among user, assistant"),
        (f"{HEAD}- {{code: A, name: a}}\nroles:\n- user\n- system", 7, "system"),
    ],
)
def test_bad_policy_is_named(tmp_path, text, line, said):
    """A policy with a typo must not become a release that scores something else, and its line must be found."""
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(InvalidPolicy, match=said) as error:
        Policy.read(path)
    assert str(error.value).startswith(f"{path}:{line}: ") and "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_aliases_stand_for_what_they_name(tmp_path):
    """Shared descriptions are written once in many YAML files."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        f"\ufeff{HEAD}- {{code: A, name: a, description: &d Both.}}\n- {{code: B, name: b, description: *d}}"
    )
    assert [one.description for one in Policy.read(path).categories] == ["Both.", "Both."]


def test_missing_policy_is_named(tmp_path):
    """A wrong path should say so rather than show a traceback."""
    with pytest.raises(InvalidPolicy, match=r"no such policy file; .* one that ships: children, embedded, granite"):
        Policy.read(tmp_path / "none.yaml")


def test_shipped_policies_load_by_name(tmp_path, monkeypatch):
    """Who installed the wheel has no folder `policies/`, and would write the categories of a known guard anew."""
    paths = sorted(Path("policies").resolve().glob("*.yaml"))
    monkeypatch.chdir(tmp_path)
    assert sorted(path.stem for path in paths) == sorted(shipped_policies.names())
    assert all(Policy.read(Path(path.stem)) == Policy.read(path) for path in paths)


def test_own_policy_comes_before_a_shipped_one(tmp_path, monkeypatch):
    """A file of one's own that happens to be called like a shipped policy must not be passed over."""
    monkeypatch.chdir(tmp_path)
    Path("embedded").write_text(f"{HEAD}- {{code: A, name: a}}")
    assert Policy.read(Path("embedded")).codes == ("A",)
