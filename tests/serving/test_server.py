"""The launcher with a real Triton server on the toy ensemble, through real gRPC."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from verdictree_serving import GrpcTls, NotReadyInTime, PortInUse, ServerFailed, ServingError, TritonServer

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(shared_toy_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(shared_toy_repository, models=("guard",)) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc_address) as connected:
        yield connected


def tensor(name: str, values: np.ndarray, data_type: str) -> triton.InferInput:
    result = triton.InferInput(name, values.shape, data_type)
    result.set_data_from_numpy(values)
    return result


def ask(client: triton.InferenceServerClient, text: str) -> Any:
    return client.infer("guard", [tensor("text", np.array([[text.encode()]], np.object_), "BYTES")])


def ask_lm(client: triton.InferenceServerClient, ids: list[int]) -> Any:
    outputs = [triton.InferRequestedOutput("total")]
    return client.infer("toy_lm", [tensor("ids", np.array([ids], np.int64), "INT64")], outputs=outputs)


def processes_in_group(group: int) -> list[int]:
    """Return the live processes of a process group, from /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(status.parent.name))
    return found


def wait_until(condition: Any, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def test_concurrent_texts_of_different_lengths_share_a_batch(client: triton.InferenceServerClient) -> None:
    """Ragged requests are run one by one, or batched with each other's elements."""
    texts = ["a", "bb", "ccc", "dddd" * 20, "e" * 7, "f", "ggg", "hh" * 30]
    with ThreadPoolExecutor(len(texts)) as pool:
        results = list(pool.map(lambda text: ask(client, text), texts))
    assert [result.as_numpy("total").item() for result in results] == [sum(text.encode()) for text in texts]
    assert max(result.as_numpy("batch_size").item() for result in results) > 1


def test_bad_request_spares_its_neighbours(client: triton.InferenceServerClient) -> None:
    """An id outside the graph's table fails everyone in the batch, with a traceback."""

    def attempt(ids: list[int]) -> int | str:
        try:
            return int(ask_lm(client, ids).as_numpy("total").item())
        except triton.InferenceServerException as error:
            return str(error.message())

    with ThreadPoolExecutor(4) as pool:
        first, bad, second, third = pool.map(attempt, [[1, 2], [999], [3], [4, 5, 6]])
    assert (first, second, third) == (3, 3, 15)
    assert isinstance(bad, str)
    assert "\n" not in bad
    assert "Traceback" not in bad


def test_concurrent_runs_answer_each_request_alone(toy_repository: Path) -> None:
    """A run beside others answers another one's request, or its failure leaves requests without an answer."""
    config = toy_repository / "toy_lm" / "config.pbtxt"
    runs = 'parameters { key: "concurrent_runs" value: { string_value: "3" } }'
    config.write_text(f"{config.read_text()}\n{runs}\n")
    ids = [[n, 999] if n % 7 == 0 else [n] * (n % 5 + 1) for n in range(60)]
    with TritonServer(toy_repository) as server, triton.InferenceServerClient(server.grpc_address) as client:

        def attempt(one: list[int]) -> tuple[int, int] | str:
            try:
                result = client.infer("toy_lm", [tensor("ids", np.array([one], np.int64), "INT64")], client_timeout=20)
            except triton.InferenceServerException as error:
                return str(error.message())
            return int(result.as_numpy("total").item()), int(result.as_numpy("batch_size").item())

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(attempt, ids))
    for one, answer in zip(ids, answers, strict=True):
        if 999 in one:
            assert "out of data bounds" in answer
        else:
            assert answer == (sum(one), 1)


def test_only_requested_outputs_are_returned(client: triton.InferenceServerClient) -> None:
    """Every output is copied and sent although the client asked for one."""
    assert [output.name for output in ask_lm(client, [1]).get_response().outputs] == ["total"]


def test_error_code_of_a_composing_step_reaches_the_client(client: triton.InferenceServerClient) -> None:
    """A request that is invalid looks like a server fault, so that the client retries it for ever."""
    with pytest.raises(triton.InferenceServerException) as caught:
        ask(client, "refuse me")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "refused" in caught.value.message()


def test_metrics_and_health_are_served_on_loopback_only(server: TritonServer) -> None:
    """An embedded server without authentication listens on all interfaces, Triton's default."""
    assert server.http_address is None
    for address in (server.grpc_address, server.metrics_address):
        host, port = address.split(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), timeout=5).close()
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", int(port)))


def test_stop_leaves_nothing_behind(shared_toy_repository: Path) -> None:
    """Model processes, shared memory and temporary directories outlive the server and fill the machine."""
    with TritonServer(shared_toy_repository) as server:
        group, scratch = server.pid, server.log_path.parent
        assert len(processes_in_group(group)) >= 3  # the server and two model processes
    assert processes_in_group(group) == []
    assert not scratch.exists()
    assert not list(Path("/dev/shm").glob(f"{scratch.name}*"))
    server.stop()  # a second call has nothing to do


def test_killed_server_is_noticed_and_cleaned_up(shared_toy_repository: Path) -> None:
    """After a crash the launcher waits for its timeout, and the model processes stay."""
    with TritonServer(shared_toy_repository) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: not server.is_ready())
        started = time.monotonic()
        with pytest.raises(ServerFailed, match="status -9: its log holds no error"):
            server.wait_ready(timeout=60)
        assert time.monotonic() - started < 5
        group = server.pid
    assert processes_in_group(group) == []


def test_killed_model_process_is_noticed(shared_toy_repository: Path) -> None:
    """The server calls itself ready for ever, while every request is an error or waits for its deadline."""
    with TritonServer(shared_toy_repository) as server:
        arguments = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_in_group(server.pid)}
        (model,) = (pid for pid, line in arguments.items() if b"toy_lm" in line)
        os.kill(model, signal.SIGKILL)
        assert wait_until(lambda: not server.is_ready())
        with pytest.raises(ServerFailed, match="a model's process has died"):
            server.wait_ready(timeout=60)


def test_a_long_temporary_folder_is_no_obstacle(
    shared_toy_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket's path has room for 107 bytes: where TMPDIR is longer, no server starts."""
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with TritonServer(shared_toy_repository) as server:
        assert server.is_ready()
    assert not any(folder.iterdir())


def test_server_ends_with_a_killed_launcher(shared_toy_repository: Path, tmp_path: Path) -> None:
    """Kill -9 of the program leaves a server that holds its memory and ports."""
    program = (
        "import sys, time\n"
        "from verdictree_serving import TritonServer\n"
        "with TritonServer(sys.argv[1]) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # a killed launcher cannot remove its temporary directory
    command = [sys.executable, "-c", program, str(shared_toy_repository)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as launcher:
        assert launcher.stdout is not None
        group = int(launcher.stdout.readline())
        launcher.kill()
    assert wait_until(lambda: processes_in_group(group) == [])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the test's certificate")
def test_tls_encrypts_grpc(shared_toy_repository: Path, tmp_path: Path) -> None:
    """The TLS options are accepted but the endpoint still answers in plain text."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", *request.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    with TritonServer(shared_toy_repository, tls=GrpcTls(certificate, key)) as server:
        with triton.InferenceServerClient(
            server.grpc_address, ssl=True, root_certificates=str(certificate)
        ) as encrypted:
            assert ask(encrypted, "a").as_numpy("total").item() == ord("a")
        with (
            triton.InferenceServerClient(server.grpc_address) as plain,
            pytest.raises(triton.InferenceServerException),
        ):
            plain.is_server_live(client_timeout=5)


def test_taken_port_is_named_before_anything_starts(shared_toy_repository: Path) -> None:
    """Triton loads every model for minutes and only then finds that its port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        server = TritonServer(shared_toy_repository, grpc_port=port)
        with pytest.raises(PortInUse, match=f"grpc port {port} on 127.0.0.1 is in use"):
            server.start()
    with pytest.raises(ServingError, match="call start"):
        _ = server.pid


def test_given_ports_are_used(shared_toy_repository: Path) -> None:
    """A port that the user fixed for a firewall or a client is replaced by another."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with TritonServer(shared_toy_repository, grpc_port=port) as server:
        assert server.grpc_address == f"127.0.0.1:{port}"
        with triton.InferenceServerClient(server.grpc_address) as client:
            assert client.is_server_ready()


def test_lost_race_for_a_free_port_is_run_again(shared_toy_repository: Path) -> None:
    """Another process takes the picked port during the load, and the start fails at random."""
    server = TritonServer(shared_toy_repository)
    server.start()
    host, port = server.metrics_address.split(":")
    try:
        with socket.create_server((host, int(port))):
            server.wait_ready()
            assert server.metrics_address != f"{host}:{port}"
    finally:
        server.stop()


def test_missing_repository_is_named(tmp_path: Path) -> None:
    """A wrong path surfaces as `Internal - failed to stat file`."""
    with pytest.raises(ServingError, match="no-such-models"):
        TritonServer(tmp_path / "no-such-models").start()


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("intra_op_thread_count", "intra_op_threads", "InvalidModelConfig: unknown parameter intra_op_threads"),
        ("max_batch_size: 8", "max_batch_sizes: 8", 'no field named "max_batch_sizes"'),
        ('target_name: "offsets"', 'target_name: "starts"', "InvalidModelConfig: config.pbtxt has the inputs"),
    ],
)
def test_load_failure_is_one_line_with_the_cause(toy_repository: Path, old: str, new: str, message: str) -> None:
    """The cause of a failed load drowns in Triton's tables and a Python traceback."""
    config = toy_repository / "toy_lm" / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(ServerFailed, match=message) as caught, TritonServer(toy_repository):
        pass
    assert "\n" not in str(caught.value)
    assert "At:" not in str(caught.value)


def test_unknown_tritonserver_option_is_reported(shared_toy_repository: Path) -> None:
    """A typing error in extra_arguments ends in Triton's usage page of three hundred lines."""
    with (
        pytest.raises(ServerFailed, match=r"unrecognized option '--nonsense=1'$"),
        TritonServer(shared_toy_repository, extra_arguments=("--nonsense=1",)),
    ):
        pass


def test_wait_ready_ends_at_its_timeout(shared_toy_repository: Path) -> None:
    """A model that never becomes ready blocks the caller for ever."""
    server = TritonServer(shared_toy_repository)
    server.start()
    try:
        with pytest.raises(NotReadyInTime, match=r"guard not ready after 0 s"):
            server.wait_ready(timeout=0)
    finally:
        server.stop()
