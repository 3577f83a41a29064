"""Servers and clients for the client's tests; every call is a real gRPC round trip."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, closing, contextmanager
from itertools import islice
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from fake_guard import FakeGateway, FakeGuard, echo
from tritonclient.grpc import service_pb2_grpc

from verdictree.v1 import guard_pb2_grpc
from verdictree_client import AsyncGuardClient, GuardClient, Retries


@contextmanager
def _servers(gate: Event, is_gateway: bool) -> Iterator[Callable[..., FakeGuard]]:
    with ExitStack() as servers:

        def start(answer=echo, address="127.0.0.1:0", credentials=None, typed=None, **options) -> FakeGuard:
            guard = FakeGuard(answer, **options)
            server = grpc.server(servers.enter_context(ThreadPoolExecutor(16)), options=[("grpc.so_reuseport", 0)])
            service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(guard, server)
            if is_gateway:
                guard_pb2_grpc.add_GuardServicer_to_server(typed or FakeGateway(guard), server)
            credentials = credentials or grpc.insecure_server_credentials()
            guard.url = f"127.0.0.1:{server.add_secure_port(address, credentials)}"
            server.start()
            servers.callback(lambda: server.stop(None).wait())
            return guard

        yield start
        gate.set()


@pytest.fixture(params=[True, False], ids=["gateway", "triton"])
def fake_guard(request, gate):
    """`fake_guard(answer, …)` starts a server that runs until the end of the test: a gateway, or Triton itself."""
    with _servers(gate, request.param) as start:
        yield start


@pytest.fixture
def fake_triton(gate):
    """The same, Triton itself only."""
    with _servers(gate, False) as start:
        yield start


@pytest.fixture
def fake_gateway(gate):
    """The same, a gateway only."""
    with _servers(gate, True) as start:
        yield start


@pytest.fixture
def gate() -> Event:
    """For answers to wait on; opened at the end of the test, so that no server thread outlives it."""
    return Event()


@contextmanager
def _sync(url: str, **settings: Any) -> Iterator[SimpleNamespace]:
    with GuardClient(url, **settings) as client:

        def bulk(items, take=None, **options):
            with closing(client.classify_many(items, **options)) as outcomes:
                return list(islice(outcomes, take))

        yield SimpleNamespace(
            classify=client.classify,
            bulk=bulk,
            policies=client.policies,
            health=client.health,
            wait_until_ready=client.wait_until_ready,
        )


@contextmanager
def _asyncio(url: str, **settings: Any) -> Iterator[SimpleNamespace]:
    with asyncio.Runner() as runner:
        client = AsyncGuardClient(url, **settings)  # made outside the loop, as at import time

        async def bulk(items, take=None, **options):
            taken: list[object] = []
            async with aclosing(client.classify_many(items, **options)) as outcomes:
                while take is None or len(taken) < take:
                    try:
                        taken.append(await anext(outcomes))
                    except StopAsyncIteration:
                        break
            return taken

        def blocking(method):
            return lambda *args, **options: runner.run(method(*args, **options))

        yield SimpleNamespace(
            classify=blocking(client.classify),
            bulk=blocking(bulk),
            policies=blocking(client.policies),
            health=blocking(client.health),
            wait_until_ready=blocking(client.wait_until_ready),
        )
        runner.run(client.close())


@pytest.fixture(params=[_sync, _asyncio], ids=["sync", "asyncio"])
def connect(request):
    """`connect(guard or url, …)` opens a client of either kind behind one blocking face; nothing is retried."""
    with ExitStack() as clients:

        def connect(guard, **settings):
            url = guard if isinstance(guard, str) else guard.url
            return clients.enter_context(request.param(url, **{"retries": Retries(limit=0)} | settings))

        yield connect


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """(key, certificate) as PEM files, self-signed for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "certificate.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    request += " -subj /CN=verdictree-test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*request.split(), "-keyout", key, "-out", chain], check=True, capture_output=True)
    return key, chain


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
