"""What a stranger can do to a server that was started without a thought: ask, and nothing else."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from supervised import TEXTS, VERDICTREE
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from verdictree.releases.admin_key import key_file, read_admin_key
from verdictree_client.rollout import NotPermitted, Rollout

pytestmark = pytest.mark.server

_CODE = """
class TritonPythonModel:
    def initialize(self, args):
        open({path!r}, "w").close()
"""
_CONFIG = json.dumps(
    {
        "name": "evil",
        "backend": "python",
        "input": [{"name": "x", "data_type": "TYPE_INT64", "dims": [1]}],
        "output": [{"name": "y", "data_type": "TYPE_INT64", "dims": [1]}],
    }
)


@pytest.fixture(scope="module")
def server(two_releases, tmp_path_factory, module_serve):
    """A server with Triton's HTTP endpoint open, which has more to attack."""
    return module_serve(two_releases, "--triton-http-port", "0")


def post(server, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, str]:
    host, port = server.said["triton_http"].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("POST", path, json.dumps(body), headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_no_request_runs_code_on_the_server(server, tmp_path):
    """One HTTP request brings a model with it, which Triton runs with its own rights."""
    ran = tmp_path / "ran"
    code = base64.b64encode(_CODE.format(path=str(ran)).encode()).decode()
    body = {"parameters": {"config": _CONFIG, "file:1/model.py": code}}
    for headers in ({}, {"Content-Type": "text/plain", "Origin": "http://else.where"}, {"verdictree-admin": "x" * 64}):
        status, _ = post(server, "/v2/repository/models/evil/load", body, headers)
        assert status == 403
    for port, said in (("triton", "restricted"), ("grpc", "UNIMPLEMENTED")):
        with triton.InferenceServerClient(server.said[port]) as client, pytest.raises(Exception, match=said):
            client.load_model("evil", config=_CONFIG, files={"file:1/model.py": _CODE.format(path=str(ran)).encode()})
    assert not ran.exists() and server.is_ready()


@pytest.mark.parametrize(
    "path, body",
    [
        ("/v2/repository/index", {}),
        ("/v2/repository/models/guard/load", {}),
        ("/v2/repository/models/guard/unload", {}),
        ("/v2/systemsharedmemory/region/x/register", {"key": "/verdictree", "offset": 0, "byte_size": 8}),
        ("/v2/systemsharedmemory/unregister", {}),
        ("/v2/cudasharedmemory/unregister", {}),
        ("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}),
        ("/v2/logging", {"log_verbose_level": 1}),
    ],
)
def test_http_control_calls_want_the_key(server, path, body):
    """Anyone who reaches the port unloads the guard, reads its memory, or fills its disk with traces."""
    assert post(server, path, body)[0] == 403
    key = {"verdictree-admin": read_admin_key(key_file(server.repository))}
    assert path != "/v2/repository/index" or post(server, path, body, key)[0] == 200


@pytest.mark.parametrize("port, said", [("triton", "restricted"), ("grpc", "UNIMPLEMENTED")])
def test_grpc_control_calls_want_the_key(server, port, said):
    """GRPC has the same calls, and one of them is forgotten."""
    with triton.InferenceServerClient(server.said[port]) as client:
        for call in (
            client.get_model_repository_index,
            lambda: client.load_model("guard"),
            lambda: client.unload_model("guard"),
            lambda: client.register_system_shared_memory("x", "/verdictree", 8),
            client.unregister_system_shared_memory,
            client.get_system_shared_memory_status,
            client.unregister_cuda_shared_memory,
            client.get_trace_settings,
            lambda: client.update_log_settings({"log_verbose_level": 1}),
        ):
            with pytest.raises(Exception, match=said):
                call()
    with (
        Rollout(server.repository, server.said["triton"], admin_key="another-key-of-some-length") as one,
        pytest.raises(NotPermitted),
    ):
        one.status()


def test_the_key_is_for_its_owner_and_new_at_every_start(serve, repository):
    """A key that every user of the machine can read, or that outlives the server, locks nothing."""
    first = serve(repository)
    path = key_file(repository)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.is_relative_to(repository)
    key = path.read_text()
    with Rollout(repository, first.said["triton"]) as rollout:
        assert rollout.status().serving == 1
    first.end()
    serve(repository)
    assert path.read_text() != key


def test_conversations_are_private_to_the_user(server):
    """Shared memory that anybody can read holds what users wrote."""
    with server.client() as client:
        client.classify("a secret word: xyzzy")
    maps = Path(f"/proc/{server.triton()}/maps").read_text()
    ours = [path for path in Path("/dev/shm").iterdir() if str(path) in maps]
    assert len(ours) >= 3 and all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in ours)
    assert stat.S_IMODE((server.repository / ".rollout" / "triton.log").stat().st_mode) & 0o077 == 0


def refused(*options: str) -> str:
    done = subprocess.run([VERDICTREE, "serve", *options], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_no_door_is_opened_beside_a_locked_one(repository, tmp_path):
    """The same conversations go in the clear over HTTP, without a certificate, that gRPC asks one for."""
    here = ("--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0")
    assert "is no loopback address" in refused(*here, "--address", "0.0.0.0")
    assert "expected an IPv4 address" in refused(*here, "--address", "no.such.host.invalid")
    tls = ("--tls-certificate", "c.pem", "--tls-key", "k.pem")
    assert "asks nobody" in refused(*here, *tls, "--tls-client-root", "r.pem", "--triton-http-port", "0")
    assert "--triton-http-port has no encryption" in refused(
        *here, *tls, "--address", "0.0.0.0", "--triton-http-port", "0"
    )


def test_a_missing_certificate_is_named(repository, tmp_path):
    """ "Socket already in use", for an hour, because a file is missing."""
    here = ("--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0")
    pem = tmp_path / "made.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    for name in ("a", "b"):
        command = [*request.split(), "-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subprocess.run(command, check=True, capture_output=True)
    junk = tmp_path / "junk.pem"
    junk.write_bytes(os.urandom(100))
    good, key = str(tmp_path / "a.pem"), str(tmp_path / "a.key")
    other = str(tmp_path / "b.key")
    cases = {
        ("--tls-certificate", str(pem), "--tls-key", key): str(pem),
        ("--tls-certificate", good, "--tls-key", str(pem)): str(pem),
        ("--tls-certificate", good, "--tls-key", other): "expected a certificate in",
        ("--tls-certificate", str(junk), "--tls-key", key): "expected a certificate in",
        ("--tls-certificate", good, "--tls-key", key, "--tls-client-root", str(junk)): "expected root certificates in",
        ("--tls-certificate", str(tmp_path), "--tls-key", key): "expected a PEM file at",
    }
    for options, said in cases.items():
        assert said in refused(*here, *options)


def test_without_http_nothing_listens_there(serve, repository):
    """An endpoint that nobody asked for, whose parser single requests can crash."""
    server = serve(repository)
    assert "triton_http" not in server.said and server.said["triton"].startswith("127.0.0.1:")
    listening = _listening_ports(server.triton())
    assert listening == {int(server.said[name].split(":")[1]) for name in ("triton", "metrics")}


def _listening_ports(pid: int) -> set[int]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def inner(model: str, **tensors: np.ndarray) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    kinds = {"int64": "INT64", "int32": "INT32", "float32": "FP32"}
    for name, values in tensors.items():
        tensor = request.inputs.add(name=name, datatype=kinds[str(values.dtype)])
        tensor.shape.extend(values.shape)
        request.raw_input_contents.append(values.tobytes())
    return request


def arrays(answer: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    kinds = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}
    pairs = zip(answer.outputs, answer.raw_output_contents, strict=True)
    return {one.name: np.frombuffer(raw, kinds[one.datatype]).reshape(tuple(one.shape)) for one, raw in pairs}


IDS, PREFIX = np.array([[20, 30, 40, 50]], np.int64), np.array([[0]], np.int32)
LM_FAULTS = {
    "a prompt that there is not": {"input_ids": IDS, "prefix_id": PREFIX + 99},
    "a negative prompt": {"input_ids": IDS, "prefix_id": PREFIX - 1},
    "three prompts for four tokens": {"input_ids": IDS, "prefix_id": np.zeros((1, 3), np.int32)},
    "more windows than there may be": {"input_ids": np.full((1, 66), 20), "prefix_id": np.zeros((1, 33), np.int32)},
    "windows of a greater length": {"input_ids": np.full((1, 4096), 20), "prefix_id": np.zeros((1, 2), np.int32)},
    "negative tokens": {"input_ids": -IDS, "prefix_id": PREFIX},
    "tokens that there are not": {"input_ids": IDS + 10**6, "prefix_id": PREFIX},
    "no tokens": {"input_ids": IDS[:, :0], "prefix_id": PREFIX},
    "too many tokens": {"input_ids": np.full((1, 20_000), 20, np.int64), "prefix_id": PREFIX},
}


def _marginals_faults(good: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    logits, expansions = good["label_logits"], good["expansions"]
    changes = {
        "a prompt that there is not": {"prefix_id": PREFIX + 99},
        "a negative prompt": {"prefix_id": PREFIX - 1},
        "NaN": {"label_logits": logits * np.nan},
        "infinity": {"log_normalizer": good["log_normalizer"] + np.inf},
        "minus infinity": {"top_logit": good["top_logit"] - np.inf},
        "expansions that there are not": {"expansions": expansions * 0 + 12345},
        "negative expansions": {"expansions": expansions * 0 - 7},
        "one node": {"label_logits": logits[:, :1]},
        "no node": {"label_logits": logits[:, :0]},
        "one token": {"label_logits": logits[:, :, :1]},
        "another batch": {"top_logit": np.concatenate([good["top_logit"]] * 2)},
    }
    return {name: {**good, **change} for name, change in changes.items()}


def test_a_bad_request_to_an_inner_model_harms_nobody(server, load):
    """A prompt's number beyond the last fails the whole batch, and its error quotes the server's files."""
    with service_channel(server) as stub, load(server, clients=4, retries=0) as found:
        good = arrays(stub.ModelInfer(inner("guard_lm", input_ids=IDS, prefix_id=PREFIX)))
        good |= {"prefix_id": PREFIX, "token_counts": np.array([[4, 0]], np.int32)}
        assert stub.ModelInfer(inner("guard_marginals", **good))
        faults = [("guard_lm", name, one) for name, one in LM_FAULTS.items()]
        faults += [("guard_marginals", name, one) for name, one in _marginals_faults(good).items()]
        for model, name, tensors in faults * 5:
            with pytest.raises(Exception) as caught:
                stub.ModelInfer(inner(model, **tensors), timeout=20)
            message = caught.value.details()
            assert caught.value.code().name in ("INVALID_ARGUMENT", "INTERNAL"), (model, name, message)
            assert not re.search(r"Traceback|File |\.py|\.cc|\.h:|site-packages", message), (model, name, message)
    assert not found.failed
    assert {len(answers) for answers in found.verdicts.values()} <= {0, 1}
    assert len(found.results) > len(TEXTS)


def service_channel(server):
    import contextlib

    import grpc

    @contextlib.contextmanager
    def opened():
        with grpc.insecure_channel(server.said["triton"]) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

    return opened()


def test_a_taken_health_port_is_named(repository):
    """The address that an orchestrator asks is silently another one."""
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        said = refused("--repository", str(repository), "--grpc-port", "0", "--health-port", str(port))
    assert f"health port {port} on 127.0.0.1 is in use" in said
