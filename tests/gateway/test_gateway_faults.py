"""The gateway under keys, load, TLS and faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from supervised import TEXTS, VERDICTREE, wait_until

from verdictree import Conversation, Message
from verdictree.v1 import guard_pb2_grpc, messages
from verdictree_client import GuardClient, GuardError, NotAllowed, Retries
from verdictree_client.connection import TLS
from verdictree_gateway.tenants import new_key
from verdictree_serving import GrpcTls, TritonServer

pytestmark = pytest.mark.server
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def test_only_who_holds_a_key_is_let_in(serve, post, tmp_path):
    """A port, of several, that asks nobody; a tenant who takes more than theirs."""
    (key, hashed), (slow_key, slow_hash) = new_key(), new_key()
    path = tmp_path / "tenants.yaml"
    slow = f"  - {{name: slow, keys: [{slow_hash}], requests_per_second: 1, burst: 2}}"
    path.write_text(f"tenants:\n  - {{name: chat, keys: [{hashed}], policies: [tiny]}}\n{slow}\n")
    server = serve("--tenants", str(path))
    for number in range(2):
        assert post(server, "/v1/classify", HELLO)[0] == 401, number
    assert post(server, "/v1/policies")[0] == 401
    assert post(server, "/v1/classify", HELLO, Authorization=f"Bearer {key}")[0] == 200
    with server.client() as stranger, pytest.raises(NotAllowed, match="expected your key"):
        stranger.classify("hello")
    with grpc.insecure_channel(server.said["grpc"]) as channel, pytest.raises(grpc.RpcError) as caught:
        guard_pb2_grpc.GuardStub(channel).Classify(messages.request(Conversation((Message("user", "hello"),))))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with server.client(api_key=key) as guard:
        assert guard.classify("hello").policy == "tiny"
        with pytest.raises(NotAllowed, match="one of this key's policies"):
            guard.classify("hello", policy="another")
    found = [post(server, "/v1/classify", HELLO, Authorization=f"Bearer {slow_key}") for _ in range(6)]
    assert Counter(status for status, *_ in found)[429] >= 3
    assert all("retry-after" in headers for status, headers, _ in found if status == 429)
    path.write_text(f"tenants:\n{slow}\n")
    assert wait_until(lambda: post(server, "/v1/classify", HELLO, Authorization=f"Bearer {key}")[0] == 401, 5)


def test_too_much_is_refused_at_once(serve, post):
    """Requests that pile up in the gateway's memory until all are too late."""
    server = serve("--max-in-flight", "2")
    with grpc.insecure_channel(server.said["grpc"]) as channel:
        stub = guard_pb2_grpc.GuardStub(channel)
        request = messages.request(Conversation((Message("user", "why " * 60),)))
        calls = [stub.Classify.future(request, timeout=20) for _ in range(40)]
        refused = [call.exception() for call in calls if call.exception() is not None]
    assert 0 < len(refused) < 40 and {one.code() for one in refused} == {grpc.StatusCode.UNAVAILABLE}
    details = status_pb2.Status.FromString(dict(refused[0].trailing_metadata())["grpc-status-details-bin"]).details
    retry = error_details_pb2.RetryInfo()
    assert details[2].Unpack(retry) and retry.retry_delay.ToNanoseconds() > 0
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: post(server, "/v1/classify", HELLO), range(40)))
    assert {status for status, *_ in found} <= {200, 503} and any(status == 200 for status, *_ in found)


def ask_until(stop: threading.Event, client: GuardClient, outcomes: Counter) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        try:
            client.classify(TEXTS[number % len(TEXTS)])
            outcomes["ok"] += 1
        except GuardError as exc:
            outcomes[type(exc).__name__] += 1


@pytest.mark.parametrize("victim", ["gateway", "triton"])
def test_a_death_costs_a_retrying_client_nothing(serve, victim):
    """The gateway dies and nobody notices; or it ends because Triton does."""
    server = serve()
    outcomes: Counter[str] = Counter()
    stop = threading.Event()
    with server.client(retries=Retries(limit=100, max_backoff=0.5)) as client:
        thread = threading.Thread(target=ask_until, args=(stop, client, outcomes))
        thread.start()
        try:
            for _ in range(2):
                time.sleep(1.0)
                before = getattr(server, victim)()
                os.kill(before, signal.SIGKILL)
                assert wait_until(lambda before=before: _is_another(server, victim, before) and server.is_ready(), 30)
        finally:
            time.sleep(0.5)
            stop.set()
            thread.join()
    assert outcomes["ok"] > 10 and outcomes.total() == outcomes["ok"]


def _is_another(server, victim: str, before: int) -> bool:
    try:
        return getattr(server, victim)() != before
    except AssertionError:
        return False


def test_a_stop_answers_what_is_in_flight_and_says_so_first(serve):
    """A watcher that is told last; calls that are cut."""
    server = serve()
    with grpc.insecure_channel(server.said["grpc"]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        stub = guard_pb2_grpc.GuardStub(channel)
        request = messages.request(Conversation((Message("user", "why " * 60),)))
        calls = [stub.Classify.future(request, timeout=30) for _ in range(12)]
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert [call.exception() for call in calls] == [None] * 12
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert server.process.wait(30) == 0


def test_several_processes_share_the_ports(serve, post):
    """Of several processes one gets all connections, or their metrics are those of one."""
    server = serve("--processes", "3")
    for _ in range(30):
        assert post(server, "/v1/classify", HELLO)[0] == 200
    time.sleep(1.5)
    line = next(line for line in server.get("/metrics")[1].splitlines() if 'outcome="ok",port="http"' in line)
    assert line.endswith(" 30.0")


def certificates(folder: Path) -> None:
    """Three self-signed ones, for localhost and 127.0.0.1."""
    for name in ("server", "client", "stranger"):
        request = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        )
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        subprocess.run([*request.split(), *names, *files], check=True, capture_output=True)


def test_both_ports_speak_tls_and_ask_for_certificates(serve, tmp_path):
    """One of two ports is forgotten, and anybody comes in by it."""
    certificates(tmp_path)
    certificate, key, root = (str(tmp_path / name) for name in ("server.pem", "server.key", "client.pem"))
    server = serve("--tls-certificate", certificate, "--tls-key", key, "--tls-client-root", root)

    def client(name: str | None) -> GuardClient:
        own = (None, None) if name is None else (tmp_path / f"{name}.key", tmp_path / f"{name}.pem")
        return server.client(tls=TLS(tmp_path / "server.pem", *own), retries=Retries(limit=0), deadline=5.0)

    with client("client") as guard:
        assert guard.classify("hello").release == 1
    for name in (None, "stranger"):
        with client(name) as guard, pytest.raises(GuardError):
            guard.classify("hello")
    url = f"https://{server.said['http']}/v1/policies"
    curl = ["curl", "-s", "-o", "-", "-w", "%{http_code}", "--cacert", certificate, url]
    own = ["--cert", root, "--key", str(tmp_path / "client.key")]
    assert subprocess.run([*curl, *own], capture_output=True, text=True).stdout.endswith("200")
    assert subprocess.run(curl, capture_output=True, text=True).returncode != 0


def test_a_gateway_alone_stands_before_several_servers(release):
    """One of two servers dies, and half of the requests with it."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "health")]
    with TritonServer(release) as first, TritonServer(release) as second:
        options = ["--triton", first.grpc_address, "--triton", second.grpc_address, "--json", *ports]
        with subprocess.Popen([VERDICTREE, "gateway", *options], stdout=subprocess.PIPE, text=True) as process:
            try:
                said = json.loads(process.stdout.readline())
                with GuardClient(said["grpc"], deadline=20.0) as guard:
                    guard.wait_until_ready(20)
                    for _ in range(10):
                        guard.classify("hello")
                    second.stop(grace=0.0)
                    for _ in range(20):
                        guard.classify("hello")
            finally:
                process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def asked_by_tls(said: dict) -> str:
    """What a gateway answers: the verdict's policy, or the error's class."""
    with GuardClient(said["grpc"], deadline=5.0, retries=Retries(limit=0)) as guard:
        try:
            return guard.classify("hello").policy
        except GuardError as exc:
            return type(exc).__name__


def test_the_way_to_triton_is_encrypted_and_both_ends_are_known(release, tmp_path):
    """Conversations cross a network in plain text, go to whoever answers there, or Triton answers whoever asks."""
    certificates(tmp_path)
    files = {name: (str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")) for name in ("server", "client")}
    tls = GrpcTls(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "client.pem")
    root = ["--triton-tls-root", files["server"][0]]
    own = ["--triton-tls-certificate", files["client"][0], "--triton-tls-key", files["client"][1]]
    stranger = ["--triton-tls-certificate", files["server"][0], "--triton-tls-key", files["server"][1]]
    other_root = ["--triton-tls-root", str(tmp_path / "stranger.pem")]
    with TritonServer(release, tls=tls) as one, TritonServer(release, tls=tls) as two:
        both = ["--triton", two.grpc_address, "--triton-tls-name", "localhost"]
        found = {}
        for name, options in {
            "known": [*root, *own],
            "two servers": [*root, *own, *both],
            "in plain text": [],
            "without a certificate": root,
            "a stranger's certificate": [*root, *stranger],
            "another root": [*other_root, *own],
            "another name": [*root, *own, "--triton-tls-name", "guard.example"],
        }.items():
            with gateway_alone("--triton", one.grpc_address, *options) as said:
                found[name] = asked_by_tls(said)
    assert found == {**dict.fromkeys(found, "ServerUnavailable"), "known": "tiny", "two servers": "tiny"}


@contextlib.contextmanager
def gateway_alone(*options: str) -> Iterator[dict]:
    """What a gateway says when it is ready."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "health")]
    with subprocess.Popen([VERDICTREE, "gateway", "--json", *ports, *options], stdout=subprocess.PIPE) as process:
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--triton-tls-root", "absent.pem"], "absent.pem"),
        (["--triton-tls-certificate", "absent.pem"], "go together"),
        (["--triton", "127.0.0.1:2", "--triton-tls-root", "absent.pem"], "give --triton-tls-name"),
    ],
)
def test_tls_options_that_cannot_work_are_named(options, said):
    """A mistyped path is found at the first request, as a server that is away."""
    command = [VERDICTREE, "gateway", "--triton", "127.0.0.1:1", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr


def test_a_taken_port_is_named(release):
    """Two gateways on one port, each of which gets half of the calls."""
    import socket

    for name in ("grpc", "http"):
        with socket.create_server(("127.0.0.1", 0)) as owner:
            port = str(owner.getsockname()[1])
            options = ["--triton", "127.0.0.1:1", "--grpc-port", "0", "--health-port", "0", f"--{name}-port", port]
            done = subprocess.run([VERDICTREE, "gateway", *options], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and f"port {port} on 127.0.0.1" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
