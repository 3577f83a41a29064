"""Verdicts and conversations as protobuf messages: nothing is lost, nothing is made up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree import Conversation, Message
from verdictree.errors import InvalidConversation
from verdictree.v1 import guard_pb2 as pb
from verdictree.v1 import messages
from verdictree.verdict import CategoryScore, GreedyVerdict, Place, Verdict, Window

ROOT = Path(__file__).parents[2]
p = st.floats(0, 1)
maybe = st.none() | p
flags = st.none() | st.booleans()
actions = st.sampled_from([None, "allow", "review", "block"])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
count = st.integers(0, 2**40)
scores = st.builds(
    CategoryScore, text, text, p, p, p, calibrated=maybe, flagged=flags, window=st.none() | count, action=actions
)
places = st.builds(Place, count, count)
verdicts = st.builds(
    Verdict,
    release=count,
    policy=text,
    role=st.sampled_from(["user", "assistant"]),
    p_unsafe=p,
    p_safe=p,
    categories=st.lists(scores, max_size=3).map(tuple),
    unexplored=p,
    off_grammar=p,
    greedy=st.builds(GreedyVerdict, text, st.lists(text, max_size=3).map(tuple), st.booleans()),
    num_tokens=count,
    num_truncated_tokens=count,
    p_unsafe_calibrated=maybe,
    flagged=flags,
    unsafe_flagged=flags,
    calibration=st.none() | text,
    p_controversial=maybe,
    undecided=st.booleans(),
    windows=st.lists(st.builds(Window, places, places, p), max_size=2).map(tuple),
    action=actions,
)
conversations = st.builds(
    Conversation,
    st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), text.filter(str.strip)), min_size=1).map(tuple),
    st.none() | text.filter(bool),
    st.sampled_from([None, "head", "windows"]),
    st.none() | text.filter(bool),
)


@given(verdicts)
def test_a_verdict_comes_back(verdict):
    """A score that no threshold was set for comes back as "not flagged"; a number is rounded."""
    sent = messages.answer(verdict).SerializeToString()
    assert messages.verdict(pb.Verdict.FromString(sent)) == verdict


@given(conversations)
def test_a_conversation_comes_back(conversation):
    """Another text, role or policy is judged than was asked."""
    sent = messages.request(conversation).SerializeToString()
    assert messages.conversation(pb.ClassifyRequest.FromString(sent)) == conversation


def test_every_field_is_in_the_interface():
    """A field that is added to the verdict, and that typed callers never see."""
    for kind, message in ((Verdict, pb.Verdict), (CategoryScore, pb.CategoryScore), (GreedyVerdict, pb.GreedyVerdict)):
        assert {one.name for one in msgspec.structs.fields(kind)} == set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    "request_",
    [
        pb.ClassifyRequest(),
        pb.ClassifyRequest(messages=[pb.Message(content="no role")]),
        pb.ClassifyRequest(messages=[pb.Message(role=7, content="a role of tomorrow")]),
        pb.ClassifyRequest(messages=[pb.Message(role=pb.ROLE_USER)]),
        pb.ClassifyRequest(messages=[pb.Message(role=pb.ROLE_USER, content="x")], truncate=9),
        pb.ClassifyRequest(messages=[pb.Message(role=pb.ROLE_USER, content="x")] * 257),
    ],
)
def test_what_is_no_conversation_is_refused(request_):
    """A message of nobody is judged as a user's."""
    with pytest.raises(InvalidConversation):
        messages.conversation(request_)


def test_the_stubs_are_those_of_the_interface(tmp_path):
    """Somebody changes the interface, and the stubs say what it was before."""
    include = Path(sys.prefix) / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"-I{include}"]
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    subprocess.run([*command, *outputs, "verdictree/v1/guard.proto"], cwd=ROOT, check=True, capture_output=True)
    for made in (tmp_path / "verdictree" / "v1").iterdir():
        assert made.read_text() == (ROOT / "verdictree" / "v1" / made.name).read_text(), "run `make stubs`"
