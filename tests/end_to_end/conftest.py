"""One real Triton server on the embedded guard's release, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from verdictree.releases.repository import pinned
from verdictree.runtime.local_guard import LocalGuard
from verdictree_client import GuardClient
from verdictree_serving import TritonServer

REPOSITORY = Path("model_repository")


@pytest.fixture(scope="session")
def server() -> Iterator[TritonServer]:
    with TritonServer(REPOSITORY) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[GuardClient]:
    with GuardClient(server.grpc_address, deadline=60.0) as connected:
        yield connected


@pytest.fixture(scope="session")
def offline() -> LocalGuard:
    # As many threads as the server computes a request with.
    return LocalGuard.load(REPOSITORY, pinned(REPOSITORY), threads=1)
