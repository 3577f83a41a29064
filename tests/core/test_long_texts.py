"""Texts that are too long are refused, or cut, at the cost of one that is not."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree.conversation import Conversation, Message
from verdictree.errors import InvalidConversation
from verdictree.releases.release import Release
from verdictree.runtime import tokenization
from verdictree.runtime.tokenization import ConversationTokenizer
from verdictree.runtime.windows import capacity, token_windows

FOLDER = Path(__file__).parents[1] / "old_releases" / "format_1" / "guard_tokenizer" / "1"
RELEASE = Release.load(FOLDER)
TOKENIZE = ConversationTokenizer.load(RELEASE, FOLDER)
LIMIT = RELEASE.max_tokens


def conversation(text: str, **options) -> Conversation:
    return Conversation((Message("user", text),), **options)


def whole_ids(text: str) -> list[int]:
    """The ids of the whole text, however long, by the plain way."""
    prompt = RELEASE.prompts[RELEASE.prefix_ids(RELEASE.policy, "user")[0]]
    rendered = RELEASE.conversation.render((Message("user", text),))
    return TOKENIZE._tokenizer.encode(prompt.text(rendered), add_special_tokens=False).ids


UNITS = st.sampled_from(["why ", "a", "1", " ", "\n", "🙂", "é", "the quick brown fox ", "S1,S2 ", "zq "])
TEXTS = st.lists(st.tuples(UNITS, st.integers(1, 2000)), min_size=1, max_size=4).map(
    lambda parts: "x" + "".join(unit * times for unit, times in parts) + "x"
)


@given(TEXTS)
def test_what_is_refused_is_too_long_and_what_is_taken_is_whole(text):
    """A bound by characters refuses what fits, or the pieces that are counted are what is judged."""
    ids = whole_ids(text)
    try:
        found = TOKENIZE(conversation(text))
    except InvalidConversation as error:
        assert len(ids) > LIMIT and "expected at most" in str(error)
    else:
        assert len(ids) <= LIMIT and found.input_ids.tolist() == ids and found.num_truncated == 0


@given(TEXTS)
def test_a_cut_text_keeps_its_last_tokens(text):
    """What is judged of a long text is not its end, or more than is allowed."""
    found, ids = TOKENIZE(conversation(text, truncate="head")), whole_ids(text)
    assert len(found.input_ids) == min(len(ids), LIMIT)
    if len(ids) > LIMIT:
        kept = found.input_ids.tolist()
        assert found.num_truncated > 0
        if (
            len(text) <= tokenization._COUNTED_PIECES * TOKENIZE._piece
        ):  # of a longer text the rest is taken to be alike
            assert abs(found.num_truncated - (len(ids) - LIMIT)) <= 0.2 * len(ids) + 64
        # A cut within one endless word may split it otherwise; at words' borders the tokens are the same.
        assert kept == ids[-LIMIT:] or " " not in text[-4 * LIMIT :].strip() or len(set(text[-8 * LIMIT :])) < 6


@given(TEXTS)
def test_windows_hold_the_whole_text_or_refuse_it(text):
    """A bound by characters that refuses what windows hold, or lets them leave out a part."""
    ids = whole_ids(text)
    try:
        found = TOKENIZE(conversation(text, truncate="windows"))
    except InvalidConversation as error:
        assert len(ids) > capacity(LIMIT) and f"expected at most {capacity(LIMIT)} tokens" in str(error)
    else:
        rows = np.split(found.input_ids, len(found.prefix_ids))
        assert [row.tolist() for row in rows] == [ids[w.start : w.stop] for w in token_windows(len(ids), LIMIT)]
        assert (found.num_tokens, found.num_truncated) == (len(ids), 0)


@pytest.mark.parametrize("unit", ["1", "a", " ", "🙂", "e\u0301", "why ", "ab1 ", "-", "\n"])
@pytest.mark.parametrize("truncate", [None, "head", "windows"])
def test_half_a_megabyte_costs_what_a_few_thousand_tokens_cost(unit, truncate):
    """One client that sends half a megabyte of digits, all refused, holds up everybody."""
    longest = "x" + (unit * (480_000 // len(unit.encode()))) + "x"
    fair = conversation("why " * 2000, truncate="head")
    begin = time.perf_counter()
    for _ in range(5):
        TOKENIZE(fair)
    fair_seconds = (time.perf_counter() - begin) / 5
    begin = time.perf_counter()
    try:
        TOKENIZE(conversation(longest, truncate=truncate))
    except InvalidConversation:
        assert truncate != "head"
    assert time.perf_counter() - begin < 60 * fair_seconds + 0.2


def test_a_prompts_own_words_are_never_cut():
    """Truncation cuts the words between prompt and conversation, and counts them as the conversation's."""
    prompts = tuple(
        msgspec.structs.replace(one, uncached_before="Judge this: ", uncached_after="Judge") for one in RELEASE.prompts
    )
    release = msgspec.structs.replace(RELEASE, prompts=prompts)
    tokenize = ConversationTokenizer(release, TOKENIZE._tokenizer)
    encode = lambda text: TOKENIZE._tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    found = tokenize(conversation("why " * 3000, truncate="head"))
    before, after = encode("Judge this: "), encode("Judge")
    ids = found.input_ids.tolist()
    assert ids[: len(before) - 1] == before[:-1] and ids[-len(after) :] == after and len(ids) == LIMIT
    assert found.num_tokens == LIMIT
    short = tokenize(conversation("hello"))
    assert short.num_truncated == 0 and short.num_tokens == len(short.input_ids)
    assert np.array_equal(
        short.input_ids, encode("Judge this: " + release.conversation.render((Message("user", "hello"),)) + "Judge")
    )
