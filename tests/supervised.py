"""A `verdictree serve` process as an operator starts it, and what a load on it got."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from verdictree_client import GuardClient

VERDICTREE = str(Path(sys.executable).with_name("verdictree"))
TEXTS = [f"Question {i}: " + "why " * (i % 7 + 1) + "?" for i in range(12)]


class Served:
    """One `verdictree serve` process; `said` is the line that it printed when it was ready."""

    def __init__(self, repository: Path, *options: str, **popen: object) -> None:
        ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "health")]
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
        return self._child("tritonserver")

    def gateway(self) -> int:
        """The id of the gateway's process."""
        return self._child("verdictree_gateway.worker")

    def _child(self, name: str) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if name.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        raise AssertionError(f"no process of {name}")

    def model_process(self, model: str) -> int:
        """The process of a model."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(path.parent.name)) == self.triton() and f"/{model}/".encode() in path.read_bytes():
                    return int(path.parent.name)
        raise AssertionError(f"no process of {model}")

    def client(self, **options) -> GuardClient:
        return GuardClient(self.said["grpc"], **{"deadline": 20.0, **options})


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
        self.stopped = float("inf")  # when the server was told to stop
        self.verdicts: dict[str, set[tuple[int, float]]] = {text: set() for text in TEXTS}

    @property
    def failed(self) -> Counter:
        return Counter(error for *_, error in self.results if error)

    def figures(self) -> dict[str, int]:
        """How many requests were answered, lost, or refused since they came after the server was told to stop.

        Mixed is how many texts got different verdicts from one release.
        """
        refused = sum(bool(error) and begin >= self.stopped for begin, _, error in self.results)
        failed = self.failed.total()
        releases = {text: [number for number, _ in answers] for text, answers in self.verdicts.items()}
        mixed = sum(len(numbers) != len(set(numbers)) for numbers in releases.values())
        answered = len(self.results) - failed
        return {"answered": answered, "refused": refused, "lost": failed - refused, "mixed": mixed}

    def in_flight(self) -> list[str | None]:
        """What became of the requests that were in flight when the server was told to stop."""
        return [error for begin, end, error in self.results if begin < self.stopped < end]
