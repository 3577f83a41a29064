"""The real `verdictree serve` on a tiny guard, and a load on it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_guard
from supervised import TEXTS, Load, Served

from verdictree_client import GuardError, Retries


@pytest.fixture(scope="session")
def two_releases(tmp_path_factory) -> Path:
    """A repository with releases 1 (pinned) and 2."""
    from verdictree_export.exporter import export_release

    repository = tmp_path_factory.mktemp("faults") / "models"
    for seed in (0, 5):
        checkpoint = tmp_path_factory.mktemp("checkpoint")
        tiny_guard.write_checkpoint(checkpoint, seed=seed, **tiny_guard.FLUENT)
        export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], repository)
    return repository


@pytest.fixture
def repository(two_releases, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(two_releases, tmp_path / "models"))


@contextlib.contextmanager
def _servers() -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as stack:

        def start(repository: Path, *options: str, ready: bool = True, **popen) -> Served:
            served = Served(repository, *options, **popen)

            def stop() -> None:
                if served.process.poll() is None:
                    served.process.send_signal(signal.SIGCONT)
                    served.process.send_signal(signal.SIGTERM)
                    served.process.send_signal(signal.SIGTERM)
                served.process.communicate(timeout=60)

            stack.callback(stop)
            return served.wait_ready() if ready else served

        yield start


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(repository, *options)` starts a server that is ready, until the end of the test."""
    with _servers() as start:
        yield start


@pytest.fixture(scope="module")
def module_serve() -> Iterator[Callable[..., Served]]:
    """The same until the end of the module."""
    with _servers() as start:
        yield start


@pytest.fixture
def load(record_property):
    """`with load(server) as found:` keeps some clients asking; `retries` and `deadline` as the client takes them.

    What became of the requests is a property of the test: `pytest --junitxml` writes it down.
    """

    @contextlib.contextmanager
    def run(server: Served, clients: int = 4, retries: int = 50, deadline: float = 30.0, long: bool = False):
        found, ended = Load(), threading.Event()
        options = {"retries": Retries(limit=retries, backoff=0.2, max_backoff=0.5), "deadline": deadline}

        def ask(offset: int) -> None:
            with server.client(**options) as client:
                number = offset
                while not ended.is_set():
                    text, begin, error = TEXTS[number % len(TEXTS)], time.monotonic(), None
                    try:
                        verdict = client.classify(text + (" zq" * 80 if long else ""))
                        found.verdicts[text].add((verdict.release, round(verdict.p_unsafe, 6)))
                    except GuardError as exc:
                        error = f"{type(exc).__name__}: {exc}"
                        ended.wait(0.05)
                    found.results.append((begin, time.monotonic(), error))
                    number += 1

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        try:
            yield found
        finally:
            ended.set()
            for thread in threads:
                thread.join()
            for name, count in found.figures().items():
                record_property(name, count)

    return run
