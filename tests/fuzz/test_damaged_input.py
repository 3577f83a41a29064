"""Damaged and hostile files and requests: the project's own error or a sound result, and nothing else, ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from verdictree import conversation_file, pair
from verdictree.conversation import Conversation, parse
from verdictree.errors import InvalidConversation, InvalidPolicy, InvalidRelease, NoVerdict, VerdictreeError
from verdictree.policy import Policy
from verdictree.releases import calibration
from verdictree.releases.calibration import Calibration, Calibrator, Outcome
from verdictree.releases.release import COMPOSING_MODELS, MANIFEST, MARGINALS_MODEL, Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree.text import yaml_lines
from verdictree.text.visible import is_visible
from verdictree_comparison import InvalidGates
from verdictree_comparison import gates as gate_files

OLD = Path("tests/old_releases/format_1")
REQUEST = {
    "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "How are you?"}],
    "policy": "tiny",
    "truncate": "head",
    "routing_key": "k",
}
POLICY = {
    "name": "tiny",
    "version": "1",
    "categories": [{"code": "S1", "name": "One", "description": "x", "threshold": 0.5}, {"code": "S2", "name": "Two"}],
    "roles": ["user", "assistant"],
    "instructions": "Be strict.",
}
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["", "user", "system", "\x00", "\x1b[31m", "S1", "User: x", "../..", 1e400, -1, 0, 1, [], {}]),
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every part of a document, by its path."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """The document with one to three of its parts replaced, removed, renamed or repeated."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(document)))
        if not path:
            continue
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "remove":
            del parent[path[-1]]
        elif kind == "replace" or isinstance(parent, list):
            parent[path[-1]] = draw(VALUES)
        else:
            parent[draw(st.text(max_size=8))] = draw(VALUES)
    return document


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut, with bytes in it changed, or with something inserted."""
    at, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
    inserted = draw(
        st.binary(max_size=8)
        | st.sampled_from(
            [b"\xef\xbb\xbf", b"\xff\xfe", b"\\ud83d", b"[" * 5000, b'{"a":' * 5000, b"\x00", b"*a", b"&a"]
        )
    )
    return draw(
        st.sampled_from([content[:at], content[:at] + inserted + content[at:], content[:at] + inserted + content[end:]])
    )


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def either(document: Any, render: Any = as_json) -> st.SearchStrategy[bytes]:
    """Damaged as a document, or as bytes."""
    return damaged(document).map(render) | damaged_bytes(render(document)) | st.binary(max_size=60)


def check_said(error: Exception) -> None:
    text = str(error)
    assert 0 < len(text) <= 2500 and all(is_visible(c) or c == "\n" for c in text)


@pytest.fixture(scope="module")
def guard() -> LocalGuard:
    return LocalGuard.load(OLD, 1, threads=1)


@settings(max_examples=300)
@given(either(REQUEST))
def test_a_request_is_answered_or_refused(guard, body):
    """From the bytes to the verdict: never another exception, never a number that is none."""
    try:
        conversation = parse(body)
        (verdict,) = guard.classify([conversation])
    except (InvalidConversation, NoVerdict) as error:
        check_said(error)
        assert len(str(error).encode()) < 6000
    else:
        assert verdict.fault() is None
        assert parse(conversation.to_json()) == conversation


@given(either(POLICY, lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")))
def test_a_policy_is_read_or_refused_with_a_line(tmp_path_factory, content):
    """A slip in a tenant's policy is the tenant's to find."""
    path = tmp_path_factory.mktemp("p") / "policy.yaml"
    path.write_bytes(content)
    try:
        found = Policy.read(path)
    except InvalidPolicy as error:
        check_said(error)
        assert str(error).startswith(str(path))
    else:
        assert found.codes and json.loads(msgspec.json.encode(found))


@given(st.text("{}[]:,-&*?|>!%@#'\"\\ \n\tab01.~=<", max_size=80))
def test_any_yaml_is_read_or_refused(text):
    """PyYAML lets exceptions of its own out, which are not YAML's."""
    try:
        yaml_lines.parse(text)
    except yaml_lines.YamlError as error:
        assert error.line >= 1


@given(either({"max_psi": 0.1, "min_conversations": 5}, lambda value: yaml.safe_dump(value).encode()))
def test_gates_are_read_or_refused(tmp_path_factory, content):
    """A gates file that is misread promotes anything."""
    path = tmp_path_factory.mktemp("g") / "gates.yaml"
    path.write_bytes(content)
    try:
        gate_files.load(path)
    except InvalidGates as error:
        check_said(error)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("release") / "models"))


OLD_MANIFEST = json.loads((OLD / MARGINALS_MODEL / "1" / MANIFEST).read_text())


@settings(max_examples=200)
@given(either(OLD_MANIFEST))
def test_a_manifest_is_read_or_refused(copy, content):
    """A manifest that half loads would serve another guard than the one that was exported."""
    for model in COMPOSING_MODELS:
        (copy / model / "1" / MANIFEST).write_bytes(content)
    try:
        found = Release.load_verified(copy, 1)
    except VerdictreeError as error:
        check_said(error)
    else:
        assert found.number == 1


def calibration_file(folder: Path) -> bytes:
    outcome = Outcome("unsafe", Calibrator("isotonic", x=(0.1, 0.9), y=(0.2, 0.8)), 0.5, "r", 1, 1)
    one = Calibration(
        version="1.1",
        created="",
        release=1,
        policy="tiny",
        manifest_sha256="a",
        guard_sha256="b",
        data={},
        unlabelled="masked",
        unsafe=outcome,
        categories=(outcome,),
    )
    return calibration.save({"tiny": one}, folder).read_bytes()


@given(st.data())
def test_a_calibration_is_read_or_refused(tmp_path_factory, data):
    """A threshold that a bit has changed flags everything, or nothing."""
    folder = tmp_path_factory.mktemp("c")
    whole = calibration_file(folder)
    content = data.draw(either(json.loads(whole)))
    path = folder / "calibration.json"
    path.write_bytes(content)
    try:
        found = calibration.read(path)
    except InvalidRelease as error:
        check_said(error)
    else:
        assert msgspec.json.encode(found) in (whole, msgspec.json.encode({}), whole[whole.index(b'{"tiny"') : -2])


LINES = [REQUEST, {"conversation": REQUEST["messages"], "labels": ["S1"]}]


@given(st.lists(st.sampled_from(LINES).flatmap(either), min_size=1, max_size=3).map(b"\n".join))
def test_conversations_are_read_or_refused_with_a_line(tmp_path_factory, content):
    """A file of millions of rows with one bad row must name it."""
    path = tmp_path_factory.mktemp("f") / "rows.jsonl"
    path.write_bytes(content)
    for call in (lambda: list(conversation_file.read_labelled(path)), lambda: conversation_file.read_one(path)):
        try:
            call()
        except InvalidConversation as error:
            check_said(error)
            assert str(path) in str(error)


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=3).map(b"\n".join))
def test_a_shadows_record_is_read_or_refused(tmp_path_factory, content):
    """A record that a full disk has damaged must not end a comparison in a traceback."""
    path = tmp_path_factory.mktemp("r") / "pairs.jsonl"
    path.write_bytes(content)
    try:
        assert list(pair.read(path)) == []
    except VerdictreeError as error:
        check_said(error)


@given(st.builds(Conversation, st.just(()), st.text(), st.sampled_from([None, "head"]), st.text()))
def test_a_conversation_that_cannot_be_sent_says_so(conversation):
    """`to_json` is the door of every caller in this process."""
    try:
        conversation.to_json()
    except InvalidConversation as error:
        check_said(error)
