"""OpenAI's shapes: what the guard reads of them, and what is said to have been left out."""

from __future__ import annotations

import msgspec
import pytest

from verdictree import CategoryScore, GreedyVerdict, Message, Verdict
from verdictree.errors import InvalidConversation
from verdictree_gateway.web import moderations
from verdictree_gateway.web.chat_messages import ChatMessage, read


def chat(*messages: dict) -> list[ChatMessage]:
    return msgspec.convert(list(messages), list[ChatMessage])


USER = {"role": "user", "content": "hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "given, kept, left_out",
    [
        ([USER], ["user: hello"], []),
        ([{"role": "system", "content": "be kind"}, USER], ["user: hello"], ["messages[0]: system"]),
        ([{"role": "developer", "content": "be kind"}, USER], ["user: hello"], ["messages[0]: developer"]),
        ([{**USER, "name": "bob"}], ["user: hello"], ["messages[0].name"]),
        (
            [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, USER],
            ["user: hello", "user: hello"],
            ["messages[1].tool_calls", "messages[1]: assistant, without text"],
        ),
        (
            [USER, {"role": "tool", "tool_call_id": "1", "content": "42"}],
            ["user: hello", "user: 42"],
            ["messages[1].role: tool, read as user"],
        ),
        (
            [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            ["user: hello", "assistant: a\nb"],
            [],
        ),
        ([USER, {"role": "assistant", "content": None, "refusal": "no"}], ["user: hello", "assistant: no"], []),
        (
            [USER, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            ["user: hello", "assistant: no"],
            [],
        ),
        ([{"role": "user", "content": ""}, USER], ["user: hello"], ["messages[0]: user, without text"]),
    ],
)  # fmt: skip
def test_a_chat_is_read_as_documented(given, kept, left_out):
    """Something that a caller sent is judged as something else, or dropped without a word."""
    messages, said = read(chat(*given))
    assert [f"{one.role}: {one.content}" for one in messages] == kept
    assert list(said) == left_out


@pytest.mark.parametrize(
    "given, said",
    [
        ([], "expected 1 to 256 messages"),
        ([USER] * 257, "expected 1 to 256 messages"),
        ([{"role": "robot", "content": "x"}], "expected a role of user"),
        ([USER, {"role": "system", "content": "x"}], r"in messages\[1\], the last, got none"),
        ([USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}], "the last, got none"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "got 'image_url'"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], r"messages\[0\].content\[0\]"),
        ([{"role": "user", "content": [{}]}], "expected a part of type text"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "got 'input_audio'"),
        ([{"role": "user", "content": [{"type": ["text"], "text": "x"}]}], "expected a part of type text"),
    ],
)
def test_what_cannot_be_judged_is_refused(given, said):
    """An image that nobody has looked at counts as harmless."""
    with pytest.raises(InvalidConversation, match=said):
        read(chat(*given))


@pytest.mark.parametrize(
    "body, texts, policy",
    [
        ({"input": "a"}, ["a"], None),
        ({"input": ["a", "b"]}, ["a", "b"], None),
        ({"input": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ["a\nb"], None),
        ({"input": "a", "model": "omni-moderation-latest"}, ["a"], None),
        ({"input": "a", "model": "text-moderation-007"}, ["a"], None),
        ({"input": "a", "model": "children"}, ["a"], "children"),
    ],
)
def test_inputs_of_moderations(body, texts, policy):
    """One of several inputs is not judged, or by another policy than was asked."""
    found = moderations.conversations(msgspec.convert(body, moderations.Request))
    assert [one.messages for one in found] == [(Message("user", text),) for text in texts]
    assert {one.policy for one in found} == {policy}


@pytest.mark.parametrize(
    "given",
    [[], [""], ["  "], "", ["a"] * 33, ["a", {"type": "text", "text": "b"}], [{"type": "image_url", "image_url": {}}]],
)
def test_inputs_that_are_none(given):
    """An empty list, which flags nothing."""
    with pytest.raises(InvalidConversation):
        moderations.conversations(msgspec.convert({"input": given}, moderations.Request))


def test_what_is_flagged_is_flagged_everywhere():
    """A category in OpenAI's answer that says another thing than the verdict; an undecided one that says harmless."""
    scores = (CategoryScore("S1", "One", 0.9, 0, 0, 0.2, False), CategoryScore("S2", "Two", 0.3, 0, 0, None, None))
    greedy = GreedyVerdict("safe", (), True)
    verdict = Verdict(1, "p", "user", 0.1, 0.9, scores, 0.0, 0.0, greedy, 3, 0, 0.1, False, False, "1")
    told = moderations.answer("id", [(verdict, verdict.to_json())])["results"][0]
    assert told["flagged"] is False
    assert told["categories"] == {"S1": False, "S2": True}, "without a threshold that of the paper holds"
    assert told["category_scores"] == {"S1": 0.2, "S2": 0.3}
    undecided = msgspec.structs.replace(verdict, undecided=True, flagged=True)
    assert moderations.answer("id", [(undecided, b"{}")])["results"][0]["flagged"] is True
