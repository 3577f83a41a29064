"""TLS, health, waiting for a server, and one client in many threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from verdictree_client import TLS, GuardClient, Health, ServerUnavailable


def test_a_tls_round_trip(fake_guard, connect, certificate):
    """The certificates never reach gRPC, and the conversation travels in plain text or not at all."""
    key, chain = (path.read_bytes() for path in certificate)
    guard = fake_guard(credentials=grpc.ssl_server_credentials([(key, chain)]))
    assert connect(guard, tls=TLS(root_certificates=certificate[1])).classify("x").greedy.text == "x"


def test_mutual_tls_needs_the_clients_certificate(fake_guard, connect, certificate):
    """The client's key and chain are swapped or dropped, and a server that asks for them refuses every call."""
    key, chain = (path.read_bytes() for path in certificate)
    guard = fake_guard(credentials=grpc.ssl_server_credentials([(key, chain)], chain, require_client_auth=True))
    tls = TLS(root_certificates=certificate[1], client_key=certificate[0], client_certificate_chain=certificate[1])
    assert connect(guard, tls=tls).classify("x").greedy.text == "x"
    with pytest.raises(ServerUnavailable):
        connect(guard, tls=TLS(root_certificates=certificate[1])).classify("x")


@pytest.mark.parametrize("tls", [None, TLS()], ids=["plain text", "other roots"])
def test_a_server_that_cannot_be_trusted_gets_nothing(fake_guard, connect, certificate, tls):
    """A failed handshake falls back to an unverified connection."""
    key, chain = (path.read_bytes() for path in certificate)
    guard = fake_guard(credentials=grpc.ssl_server_credentials([(key, chain)]))
    with pytest.raises(ServerUnavailable):
        connect(guard, tls=tls).classify("x")
    assert guard.bodies == []


def test_tls_files_are_checked_when_they_are_named(certificate, tmp_path):
    """A mistyped path surfaces as a failed handshake, hours later."""
    with pytest.raises(FileNotFoundError, match="PEM file"):
        TLS(root_certificates=tmp_path / "absent.pem")
    with pytest.raises(ValueError, match="together"):
        TLS(client_key=certificate[0])


@pytest.mark.parametrize(("live", "ready"), [(True, True), (True, False), (False, True)])
def test_health_tells_a_living_server_from_a_ready_guard(fake_guard, connect, live, ready):
    """Traffic is sent to a server that has not loaded the guard."""
    assert connect(fake_guard(live=live, ready=ready)).health() == Health(live, live and ready)


def test_health_of_a_server_that_is_away_is_an_answer(connect, unused_port):
    """A health probe crashes exactly when it is needed."""
    health = connect(f"127.0.0.1:{unused_port}").health()
    assert (health.live, health.ready) == (False, False)
    assert "UNAVAILABLE" in health.reason


def test_waiting_ends_when_the_server_comes_up(fake_guard, connect, unused_port):
    """A server that starts after its clients is never found."""
    client = connect(f"127.0.0.1:{unused_port}")
    guards = []
    timer = threading.Timer(0.3, lambda: guards.append(fake_guard(address=f"127.0.0.1:{unused_port}")))
    timer.start()
    client.wait_until_ready(timeout=10.0)
    timer.join()
    assert client.health() == Health(True, True)


def test_waiting_ends_at_its_timeout(fake_guard, connect):
    """A guard that never loads is waited for in vain, for ever."""
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match="ready=False"):
        connect(fake_guard(ready=False)).wait_until_ready(timeout=0.3)
    assert 0.3 <= time.monotonic() - start < 4.0


def test_one_client_serves_many_threads(fake_guard):
    """Two threads that share a client get each other's verdicts."""
    names = [str(n) for n in range(64)]
    with GuardClient(fake_guard().url) as client, ThreadPoolExecutor(8) as pool:
        assert [verdict.greedy.text for verdict in pool.map(client.classify, names)] == names


def test_a_client_can_be_closed_twice_and_unused(fake_guard):
    """Closing in `finally` and by `with` raises over the caller's own error."""
    with GuardClient() as client:
        client.close()
