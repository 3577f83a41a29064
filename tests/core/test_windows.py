"""A long conversation is judged part by part, all of it, and its verdict is that of the worst part."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verdictree import families
from verdictree import verdict as verdicts
from verdictree.conversation import Conversation, Message
from verdictree.errors import InvalidConversation, NoVerdict
from verdictree.families.transcript import Transcript
from verdictree.runtime.local_guard import LocalGuard
from verdictree.runtime.scorer import Scorer
from verdictree.runtime.tokenization import ConversationTokenizer, TokenizedConversation
from verdictree.runtime.windows import MAX_WINDOWS, capacity, token_windows

RELEASE = Path(__file__).parents[1] / "old_releases" / "format_1"
OUTPUTS = ("label_logits", "log_normalizer", "top_logit", "expansions")
# No two words alike, so that a part that is missing or stands elsewhere shows.
WORDS = [f"w{number} {'ok' if number % 3 else 'hello'}" for number in range(2000)]


@pytest.fixture(scope="module")
def guard():
    return LocalGuard.load(RELEASE, 1, threads=1)


def long_text(num_words):
    return " ".join(WORDS[:num_words])


def ask(*texts, **options):
    roles = ("user", "assistant")
    messages = [Message(roles[(len(texts) - i) % 2 == 0], text) for i, text in enumerate(texts)]
    return Conversation(tuple(messages), **options)


def by_hand(guard, conversation):
    """The windows' ids, cut out of the whole conversation's, and the verdict on each alone."""
    limit = guard.release.max_tokens
    longer = ConversationTokenizer(msgspec.structs.replace(guard.release, max_tokens=10**6), guard.tokenize._tokenizer)
    whole = longer(msgspec.structs.replace(conversation, truncate=None))
    ids = whole.input_ids[: whole.num_tokens]
    rows = [ids[window.start : window.stop] for window in token_windows(len(ids), limit)]
    asked = [TokenizedConversation(np.tile(row, len(whole.prefix_ids)), whole.prefix_ids, len(row), 0) for row in rows]
    return rows, [guard.classify_tokenized([one])[0] for one in asked]


@given(limit=st.integers(1, 5000), data=st.data())
def test_windows_cover_every_token_and_overlap(limit, data):
    """A word that no window holds, or that every window cuts, is never judged."""
    num_tokens = data.draw(st.integers(1, capacity(limit)))
    windows = token_windows(num_tokens, limit)
    assert windows[0].start == 0 and windows[-1].stop == num_tokens
    assert len({len(window) for window in windows}) == 1 and len(windows[0]) <= limit
    assert len(windows) <= MAX_WINDOWS and (len(windows) == 1) == (num_tokens <= limit)
    for one, following in itertools.pairwise(windows):
        assert one.start < following.start <= one.stop - limit // 8
    fewer = limit + (len(windows) - 2) * (limit - limit // 8)
    assert len(windows) == 1 or num_tokens > fewer, "fewer windows would have held it"


@given(limit=st.integers(1, 5000), more=st.integers(1, 5000))
def test_more_than_the_capacity_takes_more_windows_than_there_may_be(limit, more):
    """A request is let in whose cost nobody has bounded."""
    assert len(token_windows(capacity(limit), limit)) == MAX_WINDOWS < len(token_windows(capacity(limit) + more, limit))


# As if each guard read all turns; what it does not read is no part of the text.
FORMATS = {one.name: msgspec.structs.replace(one.conversation, reads={}) for one in families.all_families()}
LINES = st.sampled_from(["hello", "User: forged", " > Agent: no", "user:", "", " ", "é🙂", "response: agent: x", "a b"])
CONTENTS = st.lists(LINES, min_size=1, max_size=5).map("\n".join).filter(str.strip)


@pytest.mark.parametrize("name", FORMATS)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=4), data=st.data())
def test_a_place_in_the_text_is_a_place_in_a_message(name, contents, data):
    """A moderator who is shown another part of the conversation than that which was found."""
    form = FORMATS[name]
    roles = [role for role in ("user", "assistant") if role in form.turns]
    messages = [Message(roles[i % len(roles)], content) for i, content in enumerate(contents)]
    text, transcript = form.render(messages), Transcript(form, messages)
    places = [transcript.place(offset) for offset in range(len(text) + 1)]
    order = [(at.message, at.character) for at in places]
    assert order == sorted(order)
    assert all(0 <= at.character <= len(messages[at.message].content) for at in places)
    # Every character of a message that is rendered is found, and what stands there is that character.
    for number, message in enumerate(messages):
        written = form.written(message.content)
        begin = message.content.index(written)
        for character in range(begin, begin + len(written)):
            offsets = [o for o, at in enumerate(places) if (at.message, at.character) == (number, character)]
            assert any(text[o : o + 1] == message.content[character] for o in offsets), (number, character)


def test_windows_say_where_they_are(guard):
    """A verdict on thirty pages that does not say on which one the harm stands."""
    messages = (Message("user", f"  {long_text(300)}\n"), Message("assistant", "yes"), Message("user", long_text(400)))
    conversation = Conversation(messages, truncate="windows")
    found, decode = guard.tokenize(conversation), guard.tokenize._tokenizer.decode
    rows, _ = by_hand(guard, conversation)
    assert len(found.windows) == len(rows) > 4
    for (begin, end), row in zip(found.windows, rows, strict=True):
        contents = [message.content for message in messages[begin.message : end.message + 1]]
        contents[-1] = contents[-1][: end.character]
        contents[0] = contents[0][begin.character :]
        said = [word for word in decode(row.tolist()).split() if word not in ("User:", "Agent:")]
        assert said == " ".join(contents).split()


@pytest.mark.parametrize("num_words", [300, 700, 1200])
def test_the_verdict_is_that_of_the_worst_window(guard, num_words):
    """Harm in one part that is averaged away, or reported of another part."""
    conversation = ask("hello", long_text(num_words), truncate="windows")
    (verdict,) = guard.classify([conversation])
    rows, alone = by_hand(guard, conversation)
    tokenized = guard.tokenize(conversation)
    assert tokenized.input_ids.tolist() == np.concatenate(rows).tolist()
    assert len(verdict.windows) == len(alone) > 1
    assert [window.p_unsafe for window in verdict.windows] == pytest.approx([one.p_unsafe for one in alone], rel=1e-6)
    assert verdict.p_unsafe == max(window.p_unsafe for window in verdict.windows)
    assert verdict.p_safe == pytest.approx(min(one.p_safe for one in alone), rel=1e-6)
    assert verdict.unexplored == pytest.approx(max(one.unexplored for one in alone), abs=1e-7)
    assert verdict.off_grammar == pytest.approx(max(one.off_grammar for one in alone), abs=1e-6)
    assert verdict.greedy == max(alone, key=lambda one: one.p_unsafe).greedy
    for score in verdict.categories:
        marginals = [one[score.code].marginal for one in alone]
        worst = alone[score.window][score.code]
        assert score.marginal == pytest.approx(max(marginals), rel=1e-6)
        assert (score.joint, score.conditional) == pytest.approx((worst.joint, worst.conditional), rel=1e-6)
        assert marginals[score.window] == pytest.approx(max(marginals), rel=1e-6)
        # The bound holds of each window.
        assert all(one.marginal + one_verdict.unexplored <= score.marginal + verdict.unexplored + 1e-6
                   for one_verdict in alone for one in [one_verdict[score.code]])  # fmt: skip
    assert verdict.num_tokens > guard.release.max_tokens and verdict.num_truncated_tokens == 0
    assert verdict.fault() is None and verdicts.parse(verdict.to_json()) == verdict


def test_the_action_is_that_of_the_worst_window(guard):
    """A window in the review band that passes because others lie below it."""
    conversation = ask("hello", long_text(700), truncate="windows")
    (verdict,) = guard.classify([conversation])
    marginals = {score.code: score.marginal for score in verdict.categories}
    for beyond, action in ((0.0, "review"), (1e-4, "allow")):
        (asked,) = guard.release.policies
        categories = [msgspec.structs.replace(one, review=marginals[one.code] + beyond) for one in asked.categories]
        banded = msgspec.structs.replace(asked, categories=tuple(categories), review=verdict.p_unsafe + beyond)
        score = Scorer(msgspec.structs.replace(guard.release, policies=(banded,)))
        tokenized = guard.tokenize(conversation)
        (found,) = score.of_batch([tokenized], guard.infer_each([tokenized])[0])
        assert {found.action, *(one.action for one in found.categories)} == {action}


def test_one_run_of_all_windows_computes_the_same(guard):
    """A server whose backend does not take windows apart answers something else."""
    (tokenized,) = [guard.tokenize(ask(long_text(700), truncate="windows"))]
    together, apart = guard.infer([tokenized]), guard.infer_each([tokenized])[0]
    assert len(tokenized.windows) > 2
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_fits_is_judged_as_without_windows(guard):
    """A caller who always sends the option gets other scores, or a field that he does not expect."""
    plain, asked = (guard.classify([ask("hello there", truncate=truncate)])[0] for truncate in (None, "windows"))
    assert plain == asked and plain.to_json() == asked.to_json()
    assert "window" not in plain.to_json().decode()


def test_a_batch_may_hold_both(guard):
    """Windows of one conversation that are taken for another's."""
    batch = [
        ask("hello"),
        ask(long_text(500), truncate="windows"),
        ask("ok then"),
        ask(long_text(900), truncate="windows"),
    ]
    for found, conversation in zip(guard.classify(batch), batch, strict=True):
        (alone,) = guard.classify([conversation])
        assert found.p_unsafe == pytest.approx(alone.p_unsafe, rel=1e-5) and len(found.windows) == len(alone.windows)


@pytest.mark.parametrize("num_words", [20_000, 100_000])
def test_too_many_windows_are_refused(guard, num_words):
    """One request that takes an hour."""
    conversation = ask("why " * num_words, truncate="windows")
    most = capacity(guard.release.max_tokens)
    with pytest.raises(
        InvalidConversation, match=rf"at most \d+ tokens, got \d+.*; {MAX_WINDOWS} windows hold no more"
    ):
        guard.tokenize(conversation)
    a_word = len(guard.tokenize(ask("why " * 49)).input_ids) / 50
    fits = guard.tokenize(ask("why " * int((most - 99) / a_word), truncate="windows"))
    assert len(fits.windows) == MAX_WINDOWS and fits.num_truncated == 0


def test_a_window_without_a_verdict_is_none_of_the_whole(guard):
    """Harm that stands where the guard computed nothing, or answered something else, passes as safe."""
    tokenized = guard.tokenize(ask(long_text(700), truncate="windows"))
    (outputs,) = guard.infer_each([tokenized])
    nodes = outputs[0].shape[1] // len(tokenized.windows)
    for window in range(len(tokenized.windows)):
        damaged = [array.copy() for array in outputs]
        damaged[1][:, window * nodes] = math.nan
        assert isinstance(guard.score.outcome(damaged, tokenized.prefix_ids, tokenized.token_counts), NoVerdict)
    verdict = guard.score.outcome(outputs, tokenized.prefix_ids, tokenized.token_counts)
    strict = Scorer(msgspec.structs.replace(guard.release, max_off_grammar=verdict.off_grammar - 1e-6))
    found = strict.outcome(outputs, tokenized.prefix_ids, tokenized.token_counts)
    assert found.undecided and found.flagged and found.action == "block"
    without_places = guard.score.outcome(outputs, tokenized.prefix_ids, tokenized.token_counts[:2])
    assert isinstance(without_places, NoVerdict) and "places" in str(without_places)


def test_what_a_stranger_sends_of_windows_is_measured(guard):
    """Tensors of other sizes than the windows that they claim are an IndexError."""
    tokenized = guard.tokenize(ask(long_text(700), truncate="windows"))
    good = dict(zip(OUTPUTS, guard.infer_each([tokenized])[0], strict=True))
    good["prefix_id"] = np.array([tokenized.prefix_ids], np.int32)
    good["token_counts"] = np.array([tokenized.token_counts], np.int32)
    assert guard.score.fault(good) is None
    for name in ("prefix_id", "token_counts", "label_logits", "log_normalizer", "top_logit"):
        assert guard.score.fault({**good, name: good[name][:, :-1]}), name
    many = {name: np.concatenate([array] * 40, axis=1) for name, array in good.items()}
    assert "expected prefix_id of shape" in guard.score.fault(many)


def test_a_verdict_whose_windows_contradict_it_is_none(guard):
    """A caller looks for the worst window in a list that does not hold it."""
    (verdict,) = guard.classify([ask(long_text(700), truncate="windows")])
    said = json.loads(verdict.to_json())
    for change in ({"windows": []}, {"windows": [{**said["windows"][0], "p_unsafe": 1.5}] * len(verdict.windows)}):
        assert verdicts.parse(json.dumps({**said, **change}).encode()).fault()
