"""The real `verdictree serve` on a tiny guard, and what asks its ports."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_guard
from supervised import Served


@pytest.fixture(scope="session")
def release(tmp_path_factory) -> Path:
    """A repository with one release of a tiny guard."""
    from verdictree_export.exporter import export_release

    checkpoint = tmp_path_factory.mktemp("checkpoint")
    tiny_guard.write_checkpoint(checkpoint, seed=0, **tiny_guard.FLUENT)
    repository = tmp_path_factory.mktemp("gateway") / "models"
    export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], repository)
    return repository


def _ended(served: Served) -> None:
    if served.process.poll() is None:
        served.process.send_signal(signal.SIGTERM)
        served.process.send_signal(signal.SIGTERM)
    served.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def server(release) -> Iterator[Served]:
    """One server for all tests of a module."""
    served = Served(release).wait_ready()
    yield served
    _ended(served)


@pytest.fixture
def serve(release) -> Iterator[Callable[..., Served]]:
    """Start a server of the test's own, with options."""
    started: list[Served] = []

    def start(*options: str) -> Served:
        for one in started:
            _ended(one)
        started.append(Served(release, *options))
        return started[-1].wait_ready()

    yield start
    for one in started:
        _ended(one)


Answer = tuple[int, dict[str, str], dict]


@pytest.fixture(scope="session")
def post() -> Callable[..., Answer]:
    """POST a body (JSON, or bytes as they are) to an HTTP port: status, headers, JSON."""

    def post(server: Served, path: str, body: object = None, **headers: str) -> Answer:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://{server.said['http']}{path}", content, names)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, {k.lower(): v for k, v in exc.headers.items()}, json.load(exc)

    return post
