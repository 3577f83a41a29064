"""A gateway's processes, from outside: they share its ports, are replaced where they die, and drain before they end.

gateway = GatewayProcesses(settings, count=1)   takes the ports
gateway.start(addresses)                        starts the processes, which ask Triton at these
gateway.replace_dead()                          now and then
gateway.drain(seconds)                          answers what is in flight, takes nothing new
gateway.metrics()                               the processes' metrics, added up
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec
from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from verdictree import wire
from verdictree.errors import VerdictreeError
from verdictree_gateway.settings import Settings
from verdictree_gateway.worker import READY_SUFFIX, Order

_START_SECONDS = 30.0
_BACKLOG = 512
_POLL_SECONDS = 0.02
_PAUSE_SECONDS = 1.0  # between two replacements: one that dies at once must not take the machine


class GatewayFailed(VerdictreeError):
    """A gateway that does not start."""


class GatewayProcesses:
    """So many processes that answer on the same two ports."""

    def __init__(self, settings: Settings, count: int = 1) -> None:
        """Take the ports, 0 being any free one; GatewayFailed, naming the port, where one is taken."""
        self._held = contextlib.ExitStack()
        try:
            self._http = _http(self._held, settings)
            self._http.listen(_BACKLOG)
            # Bound without listening, it keeps others from the port, and lets the processes share it.
            grpc = _bound(self._held, settings.address, settings.grpc_port, "gRPC", shared=True)
            self._folder = Path(self._held.enter_context(tempfile.TemporaryDirectory(prefix="verdictree-gateway-")))
        except BaseException:
            self._held.close()
            raise
        self.settings = msgspec.structs.replace(
            settings, http_port=self._http.getsockname()[1], grpc_port=grpc.getsockname()[1]
        )
        self._processes: list[subprocess.Popen[str]] = []
        self._count = count
        self._replaced = 0.0

    @property
    def grpc_address(self) -> str:
        """`host:port` of gRPC."""
        return f"{self.settings.address}:{self.settings.grpc_port}"

    @property
    def http_address(self) -> str:
        """`host:port` of HTTP."""
        return f"{self.settings.address}:{self.settings.http_port}"

    def start(self, triton: Sequence[str]) -> None:
        """Start the processes, which ask at these addresses, and return once they answer; GatewayFailed where not."""
        self.settings = msgspec.structs.replace(self.settings, triton=tuple(triton))
        self._processes = [self._started(number) for number in range(self._count)]
        for process in self._processes:
            _wait_ready(process)

    def replace_dead(self) -> str | None:
        """Start anew who has died; what happened, or None."""
        if time.monotonic() - self._replaced < _PAUSE_SECONDS:
            return None
        dead = [number for number, process in enumerate(self._processes) if process.poll() is not None]
        for number in dead:
            self._replaced = time.monotonic()
            status = self._processes[number].returncode
            _close(self._processes[number])
            self._processes[number] = self._started(number)
        return f"a process of the gateway ended with status {status}; started anew" if dead else None

    def fault(self) -> str:
        """Why requests should go elsewhere, or an empty text."""
        if any(process.poll() is not None for process in self._processes):
            return "a process of the gateway is dead"
        return "" if any(self._folder.glob(f"*{READY_SUFFIX}")) else "no server behind the gateway takes requests"

    def drain(self, seconds: float) -> bool:
        """Take nothing new, answer what is in flight for at most so many `seconds`, and end; whether all was."""
        deadline = time.monotonic() + seconds
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        while any(process.poll() is None for process in self._processes) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        all_answered = all(process.poll() is not None for process in self._processes)
        self._kill()
        return all_answered

    def metrics(self) -> bytes:
        """All processes' metrics, added up, in Prometheus' text format; those of a second ago."""
        registry = CollectorRegistry()
        registry.register(_Sums([path.read_text() for path in sorted(self._folder.glob("*.prom"))]))
        return bytes(generate_latest(registry))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes at once, and give the ports back."""
        self._kill()
        self._held.close()

    def _kill(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            _close(process)
        self._processes = []

    def _started(self, number: int) -> subprocess.Popen[str]:
        http = self._http.fileno()
        order = Order(self.settings, http, str(self._folder / f"{number}.prom"))
        process = subprocess.Popen(
            [sys.executable, "-m", "verdictree_gateway.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(http,),
            start_new_session=True,  # a Ctrl-C is the parent's to act on
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(msgspec.json.encode(order).decode())
        return process


class _Sums(Collector):
    """The metrics of several processes as one: samples with the same name and labels are added up."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """The sums."""
        found: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = defaultdict(dict)
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    if sample.name.endswith("_created"):
                        continue
                    key = (sample.name, tuple(sample.labels.items()))
                    sums[family.name][key] = sums[family.name].get(key, 0.0) + sample.value
        for name, metric in found.items():
            for (sample_name, labels), value in sums[name].items():
                metric.add_sample(sample_name, dict(labels), value)
            yield metric


def _http(held: contextlib.ExitStack, settings: Settings) -> socket.socket:
    if settings.http_port is not None:
        return _bound(held, settings.address, settings.http_port, "HTTP")
    try:
        return _bound(held, settings.address, wire.HTTP_PORT, "HTTP")
    except GatewayFailed:
        return _bound(held, settings.address, 0, "HTTP")


def _bound(held: contextlib.ExitStack, address: str, port: int, name: str, shared: bool = False) -> socket.socket:
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if shared:
            if port:  # a server that does not share the port would not be noticed with SO_REUSEPORT alone
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address, port))
    except OSError as exc:
        raise GatewayFailed(
            f"cannot open {name} port {port} on {address}: {exc.strerror}; stop its owner, or pass 0 for any free port"
        ) from exc
    return listener


def _wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise GatewayFailed(
            f"a process of the gateway ended with status {process.wait(_START_SECONDS)} before it answered; "
            "what it said stands above"
        )


def _close(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.close()
