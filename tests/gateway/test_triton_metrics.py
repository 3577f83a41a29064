"""Triton's own metrics tell of verdicts as the gateway's do: for callers who ask Triton directly."""

from __future__ import annotations

import itertools
import random
import re
import time
import urllib.request
from collections.abc import Callable

import pytest
from supervised import Served

from verdictree import Message
from verdictree.verdict_metrics import METRICS
from verdictree_client import GuardClient, GuardError, InvalidRequest

pytestmark = pytest.mark.server
WORDS = ["what", "about", "rope,", "a", "knife?", "please", "help", "nobody", "why"]
SAMPLE = re.compile(r"^(\w+)(?:{(.*)})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def samples(text: str, prefix: str) -> dict[tuple[str, frozenset], float]:
    """Each sample of the metrics that a prefix begins, without it, by name and labels; buckets' bounds as numbers."""
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        said = dict(LABEL.findall(labels))
        if "le" in said:
            said["le"] = float(said["le"])
        if name.startswith(prefix) and not name.endswith("_created"):
            found[name.removeprefix(prefix), frozenset(said.items())] = float(value)
    return found


def of_triton(server: Served) -> dict[tuple[str, frozenset], float]:
    with urllib.request.urlopen(f"http://{server.said['metrics']}/metrics", timeout=10) as answer:
        return samples(answer.read().decode(), "verdictree_triton_")


def until(condition: Callable[[], bool], ask: Callable[[], object]) -> None:
    """Ask until a condition holds: a step hands on what it has counted when it is asked."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        ask()
        time.sleep(0.02)


def test_triton_tells_what_the_gateway_tells(serve):
    """Two definitions of one metric: a dashboard says something else of callers who ask Triton directly."""
    server, rng = serve("--self-check-seconds", "0"), random.Random(11)
    with server.client() as guard:
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(150)]
        assert len(list(guard.classify_many(texts))) == len(texts)
        of_answers = ("role", "assistant")
        turns = [Message("user", "why?"), Message("assistant", "no")]

        def of_users() -> dict[tuple[str, frozenset], float]:
            return {key: value for key, value in of_triton(server).items() if of_answers not in key[1]}

        tokens = ("tokens_count", frozenset({"release": "1", "policy": "tiny", "role": "user"}.items()))
        until(lambda: of_users().get(tokens) == len(texts), lambda: guard.classify(turns))
        for _ in range(40):  # what has waited as long as those
            guard.classify(turns)
            time.sleep(0.02)
    time.sleep(1.5)
    names = tuple(metric.name for metric in METRICS)
    gateway = {
        key: value
        for key, value in samples(server.get("/metrics")[1], "verdictree_").items()
        if key[0].startswith(names) and of_answers not in key[1] and value
    }
    triton = {key: value for key, value in of_users().items() if key[0].startswith(names) and value}
    assert len(gateway) > 60 and gateway.keys() == triton.keys()
    for key, value in gateway.items():
        assert triton[key] == pytest.approx(value), key


def test_triton_tells_of_refusals_and_of_each_steps_time(serve):
    """Callers who ask Triton directly are refused, and nobody sees how many, or where the time goes."""
    server = serve("--self-check-seconds", "0")
    with GuardClient(server.said["triton"], deadline=20.0) as guard:
        for _ in range(7):
            with pytest.raises(InvalidRequest):
                guard.classify("hello", policy="nobody's")
        refused = ("refusals_total", frozenset({"release": "1", "step": "tokenizer", "reason": "invalid"}.items()))
        until(lambda: of_triton(server).get(refused) == 7, lambda: guard.classify("hello"))
        steps = [("step_seconds_count", step) for step in ("tokenizer", "graph", "marginals")]
        steps += [("waiting_seconds_count", step) for step in ("tokenizer", "graph")]
        keys = [(name, frozenset({"release": "1", "step": step}.items())) for name, step in steps]
        until(lambda: all(of_triton(server).get(key, 0) >= 20 for key in keys), lambda: guard.classify("hello"))


def test_many_threads_at_once_and_a_restart_of_the_steps(serve):
    """Triton 2.51 crashes where two threads of a step count at once, or where what they counted by goes first."""
    server = serve("--self-check-seconds", "0")
    before = server.triton()
    with server.client() as guard:
        texts = itertools.islice(itertools.cycle(["hello", "", "why " * 3000, "what?"]), 600)
        outcomes = list(guard.classify_many(texts, concurrency=16, return_errors=True))
        assert sum(not isinstance(one, GuardError) for one in outcomes) > 200
    assert server.triton() == before
    status, error = server.end()
    assert status == 0 and "Signal" not in error


def mean(found: dict[tuple[str, frozenset], float], name: str, **labels: str) -> float:
    """The mean of a histogram's observations, of which there must be many."""
    total, count = (
        sum(value for key, value in found.items() if key[0] == f"{name}_{part}" and key[1] >= labels.items())
        for part in ("sum", "count")
    )
    assert count > 100, (name, labels)
    return total / count


def test_the_times_of_the_stages_are_the_requests_time(serve):
    """Requests are slow, and the metrics do not say where: they leave out the step that takes longest."""
    server = serve("--self-check-seconds", "0")
    with server.client() as guard:
        for _ in range(200):
            guard.classify("what about rope, a knife? " * 6)
    time.sleep(1.5)
    gateway, triton = samples(server.get("/metrics")[1], "verdictree_"), of_triton(server)
    behind = mean(gateway, "behind_seconds")
    assert 0.5 * mean(gateway, "request_seconds") < behind < mean(gateway, "request_seconds")
    stages = [mean(triton, "step_seconds", step=step) for step in ("tokenizer", "graph", "marginals")]
    stages += [mean(triton, "waiting_seconds", step=step) for step in ("tokenizer", "graph")]
    assert 0.1 * behind < sum(stages) < 1.1 * behind
