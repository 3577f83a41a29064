"""What callers really pass: text of other types, addresses as people write them; and answers that are no verdict."""

from __future__ import annotations

import enum
import itertools
import json
import math
import time
from collections import UserDict, UserString
from types import MappingProxyType

import grpc
import msgspec
import numpy as np
import pytest
from fake_guard import Status, echo
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from verdictree.conversation import MAX_BYTES, Conversation, Message, parse
from verdictree.text.visible import is_visible
from verdictree_client import (
    TLS,
    AsyncGuardClient,
    GuardClient,
    GuardError,
    InvalidRequest,
    InvalidSettings,
    Overloaded,
    Retries,
    ServerFailure,
    ServerUnavailable,
)
from verdictree_client.connection import triton_arguments
from verdictree_client.conversations import conversation_of
from verdictree_client.errors import from_status
from verdictree_client.rollout.server import Server
from verdictree_client.server import kserve_verdict as read_verdict


class Marked(str):
    """Like markupsafe's: text that prints otherwise than it is."""

    def __str__(self) -> str:
        return "not this"


class Word(enum.StrEnum):
    HELLO = "hello"


class Kind(str, enum.Enum):  # noqa: UP042 prints as Kind.HELLO
    HELLO = "hello"


TEXTS = ["hello", np.array(["hello"])[0], np.str_("hello"), Marked("hello"), Word.HELLO, Kind.HELLO]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: type(text).__name__)
def test_every_kind_of_str_is_text(text):
    """A column of a data frame or a template's output ended a bulk job with a TypeError."""
    expected = {"messages": [{"role": "user", "content": "hello"}]}
    kinds = [text, [{"role": "user", "content": text}], [Message("user", text)], [UserDict(role="user", content=text)]]
    kinds += [Conversation((Message("user", text),)), (MappingProxyType({"role": "user", "content": text}),)]
    for messages in kinds:
        assert json.loads(conversation_of(messages).to_json()) == expected
    named = conversation_of([{Marked("role"): Marked("user"), Marked("content"): text}], text, None, text)
    assert json.loads(named.to_json()) == expected | {"policy": "hello", "routing_key": "hello"}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (b"hello", r"got `bytes` - at `\$.messages`|got .bytes"),
        (None, r"got `null` - at `\$.messages`"),
        (5, r"got `int` - at `\$.messages`"),
        (math.nan, r"got `float` - at `\$.messages`"),
        (np.array("hello"), "got array"),
        (np.array([1, 2]), r"at `\$.messages\[0\]`"),
        (["hello"], r"got `str` - at `\$.messages\[0\]`"),
        ([None], r"got `null` - at `\$.messages\[0\]`"),
        ([{"role": "user", "content": math.nan}], r"got `float` - at `\$.messages\[0\].content`"),
        ([{"role": "user", "content": b"hello"}], r"\$.messages\[0\].content"),
        ([{"role": "user", "content": ["hello"]}], r"got `array` - at `\$.messages\[0\].content`"),
        ([{"role": "user", "content": UserString("hello")}], r"\$.messages\[0\].content"),
        ([{1: "user"}], "messages"),
        ("half \ud83d", r"messages\[0\].content, got a lone surrogate"),
        (itertools.repeat({"role": "user", "content": "x"}), "got 257"),
    ],
    ids=repr,
)
def test_what_is_no_text_is_named_with_its_place(messages, said):
    """The caller must find the row, and `except GuardError` must catch it."""
    with pytest.raises(InvalidRequest, match=said) as error:
        conversation_of(messages)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.text(), st.just(object()))
    | st.sampled_from([Marked("x"), np.str_("y"), np.float32(1), np.array("z"), np.array(["a", "b"]), "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "x", Marked("role"), 1, None]), inner, max_size=3)
        | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]) | inner, "content": inner})
        | st.builds(Message, inner, inner)
    ),
    max_leaves=6,
)


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
def test_any_argument_makes_a_request_or_an_invalid_one(messages, policy, truncate, key):
    """Any other exception type ends a bulk job of a million rows, errors returned or not."""
    try:
        body = conversation_of(messages, policy, truncate, key).to_json()
    except InvalidRequest as error:
        assert len(str(error)) <= 2500
    else:
        assert len(parse(body).messages) >= 1


@pytest.mark.parametrize("field", ["policy", "routing_key", "role", "content", "key"])
@pytest.mark.parametrize(
    "text", ["x" * MAX_BYTES, "\ud800", "\x1b[31m\x00\u202e", "é" * 300_000], ids=lambda t: repr(t)[:9]
)
def test_an_error_quotes_little_and_shows_what_is_hidden(field, text):
    """500 KB of policy name in an error burst gRPC's metadata, which read as an overloaded server."""
    turn = {"role": "user", "content": "x"} | ({field: text} if field in ("role", "content") else {})
    turn |= {text: "x"} if field == "key" else {}
    options = {field: text} if field in ("policy", "routing_key") else {}
    try:
        conversation_of([turn], **options)
    except InvalidRequest as error:
        assert len(str(error).encode()) < 6000
        assert all(map(is_visible, str(error)))


@pytest.mark.parametrize("rows", [TEXTS, [np.str_("a"), 5, b"b", "\ud800", "c", {"role": "user"}, None, ["d"], "e"]])
def test_a_bulk_job_loses_no_row(fake_guard, connect, rows):
    """One row of another type took all rows after it with it."""
    outcomes = connect(fake_guard()).bulk(rows, return_errors=True, concurrency=3)
    failed = [isinstance(outcome, InvalidRequest) for outcome in outcomes]
    assert failed == [not isinstance(row, str) or row == "\ud800" for row in rows]


def test_a_closed_client_fails_as_a_guard_error(fake_guard):
    """gRPC's own ValueError for a closed channel is outside the tree."""
    client = GuardClient(fake_guard().url)
    client.close()
    with pytest.raises(GuardError, match="is the client closed"):
        client.classify("x")
    outcomes = list(client.classify_many(["a", "b"], return_errors=True))
    assert [type(one) for one in outcomes] == [ServerFailure, ServerFailure]


UNDERSTOOD = {
    "127.0.0.1:8001": "127.0.0.1:8001",
    " guard.internal:8001\n": "guard.internal:8001",
    "grpc://guard:8001": "guard:8001",
    "GRPC://guard:8001/": "guard:8001",
    "guard:8001/": "guard:8001",
    "[::1]:8001": "[::1]:8001",
    "grpc://[fe80::1%eth0]:8001/": "[fe80::1%eth0]:8001",
    "dns:///guard:8001": "dns:///guard:8001",
    "unix:///tmp/guard.sock": "unix:///tmp/guard.sock",
}
REFUSED = {
    "http://guard:8001": "leave out http://.*port is another",
    "HTTP://guard:8000/v2": "leave out HTTP://",
    "https://guard:8001": "leave out https://.*TLS",
    "grpcs://guard:8001": "TLS",
    "ftp://guard:8001": "leave out ftp://",
    "guard": "names no port",
    "": "names no port",
    "guard:": "names no port",
    "guard:eighty": "names no port",
    "guard:0": "port is none",
    "guard:65536": "port is none",
    "guard:" + "9" * 5000: "port is none",
    "guard:8001/v2/models": "a path",
    "grpc://guard:8001/guard": "a path",
    "guard 1:8001": "white space",
    "guard\u200b:8001": "invisible",
    "::1:8001": "stands in brackets",
    "[::1]": "no port|port is none",
    "user:secret@guard:8001": "expected a gRPC address",
    "guard:8001?x=1": "expected a gRPC address",
}


@pytest.mark.parametrize("written", UNDERSTOOD)
def test_addresses_that_are_understood(written):
    """A slash, a blank or gRPC's own scheme is no reason to fail with "Misformatted domain name"."""
    assert triton_arguments(written, None)["url"] == UNDERSTOOD[written]


@pytest.mark.parametrize("written", REFUSED, ids=lambda text: text[:20])
@pytest.mark.parametrize("make", [GuardClient, AsyncGuardClient, lambda url: Server(url, None, None)])
def test_addresses_that_are_none_say_how_to_write_one(make, written):
    """An HTTP address is what most people try first, and gRPC's error for it names nothing."""
    with pytest.raises(InvalidSettings, match=REFUSED[written]) as error:
        make(written)
    assert "give HOST:PORT" in str(error.value) and len(str(error.value)) < 400 and isinstance(error.value, GuardError)


@given(st.text() | st.from_regex(r"\A(\w+://)?[\w.:\[\]-]*(:\d*)?/?\Z"))
def test_any_address_is_understood_or_refused(written):
    """An address must never raise anything else, nor reach gRPC with white space in it."""
    try:
        url = triton_arguments(written, None)["url"]
    except InvalidSettings as error:
        assert all(map(is_visible, str(error)))
    else:
        assert url == url.strip() and url


@pytest.mark.parametrize("content", [b"", b"\x00\xff junk", None], ids=["empty", "junk", "a folder"])
def test_tls_files_of_another_kind_are_named(tmp_path, content):
    """Found at the first handshake, it would read as a server that is away."""
    path = tmp_path / "root.pem"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"expected a PEM file at .*root\.pem"):
        TLS(root_certificates=path)


@given(st.integers(min_value=0) | st.sampled_from([1023, 1024, 10**6]), st.floats(1e-9, 1e6), st.floats(1e-9, 1e6))
def test_a_pause_never_overflows(num_retries, backoff, longest):
    """2 to the 1,024th is no float: a patient client ended with an OverflowError."""
    retries = Retries(limit=5000, backoff=backoff, max_backoff=longest)
    assert 0 < retries.pause(num_retries) <= longest


@pytest.mark.parametrize("deadline", [1e300, 10**400, math.inf, math.nan, "1", 0, -1, True * 0])
def test_a_deadline_that_is_none_is_a_settings_error(deadline):
    """A number that overflows what counts it later would fail somewhere inside gRPC."""
    with pytest.raises(InvalidSettings, match="deadline in seconds"):
        GuardClient(deadline=deadline)


def test_the_server_is_told_how_long_a_request_may_wait(fake_triton, connect):
    """A server that does not know the deadline computes for callers who have gone."""
    failures = [Status(grpc.StatusCode.UNAVAILABLE)]
    guard = fake_triton(lambda body: (time.sleep(0.2), failures.pop())[1] if failures else echo(body))
    connect(guard, deadline=4.0, retries=Retries(limit=1, backoff=0.01)).classify("x")
    first, second = guard.queue_microseconds
    assert 2_000_000 < second < first <= 3_000_000 and first - second >= 150_000 - 1000


def test_a_server_that_is_away_says_what_to_do(connect, unused_port):
    """gRPC's raw text says what failed in its own layers, not what to do."""
    with pytest.raises(ServerUnavailable, match=rf"at 127\.0\.0\.1:{unused_port}, .*start it with `verdictree serve`"):
        connect(f"127.0.0.1:{unused_port}").classify("x")


def test_an_overloaded_server_is_not_said_to_be_away():
    """A full queue is no reason to start another server."""
    error = from_status(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", "guard:1")
    assert type(error) is Overloaded


GOOD = json.loads(echo({"messages": [{"role": "user", "content": "x"}]}))
NUMBERS = ["p_unsafe", "p_safe", "unexplored", "off_grammar"]


def answer(verdict):
    body = verdict if isinstance(verdict, bytes) else json.dumps(verdict).encode()
    response = service_pb2.ModelInferResponse(raw_output_contents=[len(body).to_bytes(4, "little") + body])
    response.outputs.add(name="verdict", datatype="BYTES", shape=[1, 1])
    return response


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, None, "0.5", 1.001, -0.001, 2, 1e308, True, [0.5]])
@pytest.mark.parametrize("name", [*NUMBERS, "marginal", "joint", "conditional"])
def test_a_number_that_is_no_probability_is_no_verdict(name, number):
    """NaN is below every threshold: content would pass because a guard computed nothing."""
    damaged = json.loads(json.dumps(GOOD))
    (damaged if name in NUMBERS else damaged["categories"][0])[name] = number
    with pytest.raises(ServerFailure, match="expected a verdict"):
        read_verdict(answer(damaged))


@pytest.mark.parametrize("name", ["p_unsafe_calibrated", "p_controversial"])
def test_the_optional_numbers_are_probabilities_too(name):
    """A calibrated score of 7 is above every threshold, of -1 below."""
    assert read_verdict(answer(GOOD | {name: None})) == read_verdict(answer(GOOD))
    for number in (7, -1):
        with pytest.raises(ServerFailure, match=name):
            read_verdict(answer(GOOD | {name: number}))


def test_a_verdict_without_a_part_is_none():
    """A missing number must not become a default one."""
    assert read_verdict(answer(GOOD)).p_unsafe == GOOD["p_unsafe"]
    for name in [*NUMBERS, "categories", "greedy", "policy", "release"]:
        with pytest.raises(ServerFailure, match="expected a verdict"):
            read_verdict(answer({key: value for key, value in GOOD.items() if key != name}))
    with pytest.raises(ServerFailure, match="no categories"):
        read_verdict(answer(GOOD | {"categories": []}))


def test_sums_of_probabilities_may_round(fake_guard, connect):
    """The last digit of a float is no reason to refuse a verdict."""
    verdict = msgspec.json.decode(msgspec.json.encode(GOOD | {"p_unsafe": 1.0000000002, "unexplored": -1e-12}))
    assert connect(fake_guard(lambda _body: json.dumps(verdict).encode())).classify("x").p_unsafe > 1
