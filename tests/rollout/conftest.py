"""Two small guards with tokenizers and weights of their own, exported once, and servers on copies of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import load
import numpy as np
import pytest
import tiny_guard

from verdictree.conversation import Conversation, Message
from verdictree.releases import startup
from verdictree.runtime.local_guard import LocalGuard
from verdictree_client.rollout import Rollout
from verdictree_serving import TritonServer


@pytest.fixture(scope="session")
def two_releases(tmp_path_factory) -> Path:
    """A repository with releases 1 (pinned) and 2."""
    from verdictree_export.exporter import export_release

    repository = tmp_path_factory.mktemp("rollout") / "models"
    for seed, vocab_size in ((0, 420), (5, 300)):
        checkpoint = tmp_path_factory.mktemp("checkpoint")
        tiny_guard.write_checkpoint(checkpoint, seed=seed, vocab_size=vocab_size, verdict_strength=3.0)
        export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], repository, max_off_grammar=1.0)
    return repository


@pytest.fixture(scope="session")
def p_unsafe(two_releases) -> dict[int, list[float]]:
    """What each release, whole, says of the load's texts: a mixture of two would say something else."""
    return {
        number: [
            LocalGuard.load(two_releases, number).classify([Conversation((Message("user", text),))])[0].p_unsafe
            for text in load.TEXTS
        ]
        for number in (1, 2)
    }


@pytest.fixture
def repository(two_releases, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(two_releases, tmp_path / "models"))


@pytest.fixture
def start() -> Iterator[Callable[..., TritonServer]]:
    """`start(repository, …)` serves a repository, as `verdictree serve` does, until the end of the test."""
    with ExitStack() as servers:

        def start(repository: Path, **options) -> TritonServer:
            startup.prepare(repository, None)
            return servers.enter_context(TritonServer(repository, **options))

        yield start


@pytest.fixture
def server(repository, start) -> TritonServer:
    return start(repository)


@pytest.fixture
def rollout(repository, server) -> Iterator[Rollout]:
    with Rollout(repository, server.grpc_address, who="tester") as one:
        yield one


@dataclass
class Load:
    """What a running load got, once it has ended."""

    results: list[list] = None  # type: ignore[assignment]

    @property
    def failures(self) -> list[list]:
        return [one for one in self.results if one[3] is None]

    def mixed(self, p_unsafe: dict[int, list[float]]) -> list[list]:
        """The answers that are not those of the release that they name."""
        answered = (one for one in self.results if one[3] is not None)
        return [one for one in answered if abs(one[4] - p_unsafe[one[3]][one[2]]) > 1e-4]

    def milliseconds(self, windows: list[tuple[float, float]]) -> np.ndarray:
        """The latencies of the requests that were in flight in any of the (begin, end) windows."""
        inside = [one for one in self.results if any(one[1] > begin and one[0] < end for begin, end in windows)]
        return np.array([1000 * (one[1] - one[0]) for one in inside])


@pytest.fixture
def saturated(tmp_path):
    """`with saturated(server) as load:` keeps eight requests in flight from another process."""

    @contextmanager
    def run(server: TritonServer, num_threads: int = 8) -> Iterator[Load]:
        flag, results = tmp_path / "load.running", tmp_path / "load.json"
        flag.touch()
        arguments = [server.grpc_address, str(flag), str(results), str(num_threads)]
        process = subprocess.Popen([sys.executable, load.__file__, *arguments])
        found = Load()
        try:
            time.sleep(2.0)  # it imports and connects
            yield found
        finally:
            flag.unlink()
            process.wait(timeout=60)
        found.results = json.loads(results.read_text())
        assert len(found.results) > 50, "the load itself failed"

    return run
