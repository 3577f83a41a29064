"""Long conversations, part by part, by a real Triton: what is hidden in them is found, and nobody else waits."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton
from end_to_end.test_served import numbers

from verdictree import verdict as verdicts
from verdictree.conversation import Conversation, Message
from verdictree.runtime.windows import MAX_WINDOWS
from verdictree_client import InvalidRequest

pytestmark = pytest.mark.server

TOWNS = ["Ulm", "Bath", "Lyon", "Graz", "Turin", "Delft", "Cork", "Basel"]
FOOD = ["soup", "bread and cheese", "rice with peas", "pancakes", "an apple cake", "noodles with friends"]


def harm():
    """A question that the guard flags, from elsewhere."""
    with open("benchmarks/conversations/unsafe.jsonl", encoding="utf-8") as file:
        row = json.loads(file.readlines()[2])
    return row["conversation"][0]["content"]


@cache
def diary(num_tokens, tokenizer):
    """So many tokens of a harmless text, no two sentences of it alike."""
    draw, days, count = random.Random(0), [], 0
    while count < num_tokens:
        towns, weather = draw.sample(TOWNS, 2), draw.choice(["mild", "wet", "windy", "clear"])
        walked = f"On day {len(days) + 1} we walked {draw.randint(5, 29)} kilometres from {towns[0]} to {towns[1]}"
        days.append(f"{walked}, the weather was {weather}, and in the evening we ate {draw.choice(FOOD)}.")
        count += len(tokenizer.encode(" " + days[-1], add_special_tokens=False).ids)
    return days


def hidden(place, tokenizer, num_tokens=5000):
    """The harm before, in the middle of, or after a long diary."""
    days = diary(num_tokens, tokenizer)
    at = {"before": 0, "between": len(days) // 2, "after": len(days)}[place]
    return "\n".join(part for part in (" ".join(days[:at]), harm(), " ".join(days[at:])) if part)


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_harm_beside_five_thousand_harmless_tokens_is_found(offline, place):
    """A padding attack: what is cut off, or drowned in harmless text, is never judged."""
    text = hidden(place, offline.tokenize._tokenizer)
    conversation = Conversation((Message("user", text),), truncate="windows")
    (found,), (alone,) = offline.classify([conversation]), offline.classify([Conversation((Message("user", harm()),))])
    begin, end = text.index(harm()), text.index(harm()) + len(harm())
    clean = [one.p_unsafe for one in found.windows if one.end.character <= begin or one.begin.character >= end]
    assert len(found.windows) > 5 and len(clean) >= 4
    assert found.flagged and found.p_unsafe > 0.5 > max(clean) and found.p_unsafe > 0.7 * alone.p_unsafe
    worst = [max(found.windows, key=lambda one: one.p_unsafe)]
    worst += [found.windows[score.window] for score in found.categories if score.flagged]
    assert all(one.begin.character < end and begin < one.end.character for one in worst)
    (head,) = offline.classify([msgspec.structs.replace(conversation, truncate="head")])
    assert bool(head.flagged) == (place == "after")


def test_served_equals_offline(client, offline):
    """Windows that are computed one after another, between other requests, must come together as they were."""
    tokenizer = offline.tokenize._tokenizer
    conversation = Conversation((Message("user", hidden("between", tokenizer, 2400)),), truncate="windows")
    served, (alone,) = client.classify(conversation), offline.classify([conversation])
    np.testing.assert_allclose(numbers(served), numbers(alone), atol=1e-6)
    assert len(served.windows) == len(alone.windows) > 2
    assert [(one.begin, one.end) for one in served.windows] == [(one.begin, one.end) for one in alone.windows]
    assert [score.window for score in served.categories] == [score.window for score in alone.categories]
    assert served.num_truncated_tokens == 0 and served.num_tokens == alone.num_tokens


def test_short_requests_do_not_wait_for_all_windows(client):
    """One long text that holds up everybody for as long as it takes."""
    with ThreadPoolExecutor(1) as pool:
        begin = time.perf_counter()
        long = pool.submit(client.classify, "word " * 4500, truncate="windows")
        time.sleep(0.3)  # it has begun
        seconds, begun = [], time.perf_counter()
        while len(seconds) < 3:
            asked = time.perf_counter()
            client.classify("short")
            seconds.append(time.perf_counter() - asked)
        assert not long.done(), (seconds, time.perf_counter() - begun)
        num_windows = len(long.result().windows)
    whole = time.perf_counter() - begin
    # Of one window at a time, a single core has to wait for up to two.
    assert num_windows > 4 and max(seconds) < 3 * whole / num_windows, (seconds, whole)


def test_too_many_windows_are_an_invalid_argument(client):
    """A text of any length must cost a bounded time."""
    with pytest.raises(InvalidRequest, match=f"{MAX_WINDOWS} windows hold no more"):
        client.classify("word " * 60_000, truncate="windows")


def test_any_client_gets_the_places(server):
    """A service in another language has no code of ours: windows are JSON as all else."""
    body = json.dumps(
        {
            "messages": [
                {"role": "user", "content": "word " * 900},
                {"role": "assistant", "content": "no"},
                {"role": "user", "content": "  " + "word " * 900},
            ],
            "truncate": "windows",
        }
    ).encode()
    with triton.InferenceServerClient(server.grpc_address) as plain:
        tensor = triton.InferInput("request", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[body]], dtype=object))
        answer = plain.infer("guard", [tensor]).as_numpy("verdict")[0, 0]
    said = json.loads(answer)
    assert said["windows"][0]["begin"] == {"message": 0, "character": 0}
    assert said["windows"][-1]["end"] == {"message": 2, "character": 2 + len("word " * 900) - 1}
    assert verdicts.parse(answer).fault() is None
