"""The real `verdictree serve` on a tiny guard, as an operator starts it, and a load on it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_guard

from verdictree_client import GuardClient, GuardError, Retries

VERDICTREE = str(Path(sys.executable).with_name("verdictree"))
TEXTS = [f"Question {i}: " + "why " * (i % 7 + 1) + "?" for i in range(12)]


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


class Served:
    """One `verdictree serve` process; `said` is the line that it printed when it was ready."""

    def __init__(self, repository: Path, *options: str, **popen: object) -> None:
        ports = [f"--{name}-port=0" for name in ("grpc", "metrics", "health")]
        self.repository = repository
        self.process = subprocess.Popen(
            [VERDICTREE, "serve", "--repository", str(repository), "--json", *ports, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self.said: dict = {}

    def wait_ready(self) -> Served:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.said = json.loads(line)
        return self

    def end(self, sent: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; the exit status, and what it said on stderr."""
        self.process.send_signal(sent)
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error

    def get(self, path: str) -> tuple[int, str]:
        """What the health address answers: status, text."""
        host, port = self.said["health"].split(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=5)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def is_ready(self) -> bool:
        try:
            return self.get("/ready")[0] == 200
        except OSError:
            return False

    def triton(self) -> int:
        """Triton's process id; after a restart another one than was said."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return int(Path(path).read_text().split()[0])

    def model_process(self, model: str) -> int:
        """The process of a model."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(path.parent.name)) == self.triton() and f"/{model}/".encode() in path.read_bytes():
                    return int(path.parent.name)
        raise AssertionError(f"no process of {model}")

    def client(self, **options) -> GuardClient:
        return GuardClient(self.said["grpc"], **{"deadline": 20.0, **options})


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


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


class Load:
    """What a load got: (begin, end, error class or None), times of time.monotonic."""

    def __init__(self) -> None:
        self.results: list[tuple[float, float, str | None]] = []
        self.verdicts: dict[str, set[tuple[int, float]]] = {text: set() for text in TEXTS}

    @property
    def failed(self) -> Counter:
        return Counter(error for *_, error in self.results if error)

    def in_flight(self, moment: float) -> list[str | None]:
        """What became of the requests that were in flight at a moment."""
        return [error for begin, end, error in self.results if begin < moment < end]


@pytest.fixture
def load():
    """`with load(server) as found:` keeps some clients asking; `retries` and `deadline` as the client takes them."""

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

    return run
