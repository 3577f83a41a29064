"""The commands as a newcomer runs them, on a guard that exports in seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
import tiny_guard
import yaml

from verdictree_client import GuardClient, GuardError, Retries

pytestmark = pytest.mark.server

VERDICTREE = str(Path(sys.executable).with_name("verdictree"))


def run(*arguments, **options):
    return subprocess.run([VERDICTREE, *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tiny_guard.write_checkpoint(tmp_path_factory.mktemp("cli-checkpoint"))
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(msgspec.to_builtins(tiny_guard.POLICY)))
    repository = tmp_path_factory.mktemp("cli") / "models"
    done = run(
        "export",
        folder,
        "--family",
        "llama-guard-3",
        "--policy",
        policy,
        "--repository",
        repository,
        "--max-off-grammar",
        "1",
    )
    assert done.returncode == 0, done.stderr
    assert "release 1" in done.stdout and "serves release 1" in done.stdout
    return repository


def test_inspect_recognizes_the_family(models):
    """A newcomer who does not know what a checkpoint is would otherwise export it as something else."""
    folder = next(path for path in models.parent.parent.glob("cli-checkpoint*") if (path / "policy.yaml").exists())
    done = run("inspect", folder, "--policy", folder / "policy.yaml")
    assert done.returncode == 0, done.stderr
    assert "family      llama-guard-3" in done.stdout and "→ S10" in done.stdout
    assert "constant tokens before the conversation" in done.stdout
    refused = run("inspect", folder, "--policy", "policies/children.yaml", "--family", "qwen3guard")
    assert refused.returncode == 1 and "choose the family that the checkpoint was made for" in refused.stderr


def test_policy_check_warns_of_categories_that_never_move(models):
    """Custom categories that a guard ignores are the main complaint: a score that is always 0 must be told."""
    done = run("policy", "check", "--repository", models)
    assert done.returncode == 1 and "never moves" in done.stderr and "S10 Ten" in done.stdout
    assert "expected policy 'tiny'" in run("policy", "check", "toddlers", "--repository", models).stderr


@pytest.fixture
def serving(models):
    """A running `verdictree serve` and the addresses that it printed."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    process = subprocess.Popen(
        [VERDICTREE, "serve", "--repository", models, "--json", *ports], stdout=subprocess.PIPE, text=True
    )
    yield process, json.loads(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def gone(pid: int) -> bool:
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_serve_classify_and_stop(serving, sent):
    """A stop must end the server and its model processes, with exit status 0."""
    process, said = serving
    done = run("classify", "hello there", "--url", said["grpc"], "--json")
    verdict = json.loads(done.stdout)
    assert verdict["release"] == said["release"] == 1 and 0 <= verdict["p_unsafe"] <= 1
    other = run("classify", "hello there", "--url", said["grpc"], "--policy", "children")
    assert other.returncode == 1 and "expected policy 'tiny' or none, got 'children'" in other.stderr
    table = run("classify", "hello [bold]there", "--url", said["grpc"])
    assert "P(unsafe)" in table.stdout and "[bold]" in table.stdout
    process.send_signal(sent)
    assert process.wait(timeout=60) == 0
    assert gone(said["pid"])


def test_classify_reads_a_conversation(serving, tmp_path):
    """Piped conversations are how scripts call it."""
    _, said = serving
    body = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    piped = run("classify", "--conversation", "-", "--json", "--url", said["grpc"], input=body)
    assert json.loads(piped.stdout)["role"] == "assistant"
    path = tmp_path / "conversation.json"
    path.write_text("{")
    broken = run("classify", "--conversation", path, "--url", said["grpc"])
    assert broken.returncode == 1 and "invalid JSON" in broken.stderr and "Traceback" not in broken.stderr


def test_killed_server_is_an_error_not_a_verdict(serving):
    """Whoever waits for an answer when the server dies must be told; nothing fails open, and the server comes back."""
    process, said = serving
    outcomes = []

    def ask():
        with GuardClient(said["grpc"], deadline=20.0, retries=Retries(limit=0)) as client:
            while True:
                try:
                    client.classify("hello " * 200)
                except GuardError as error:
                    outcomes.append(error)
                    return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    os.kill(said["pid"], signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=60)
    assert len(outcomes) == 4
    with GuardClient(said["grpc"], deadline=20.0) as client:
        client.wait_until_ready(60.0)
        assert client.classify("hello").release == 1
    assert process.poll() is None


def test_port_in_use_is_named(serving, models):
    """Two servers on one port must not leave the second one half started."""
    _, said = serving
    port = said["grpc"].rpartition(":")[2]
    second = run("serve", "--repository", models, "--grpc-port", port, "--http-port", "0", "--metrics-port", "0")
    assert second.returncode == 1 and port in second.stderr and len(second.stderr.strip().splitlines()) == 1


def test_damaged_release_is_not_served(models, tmp_path):
    """A truncated download must be refused before a server starts on it."""
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    graph = copy / "guard_lm" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    done = run("serve", "--repository", copy, "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
    assert done.returncode == 1 and "not the file that was exported" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--repository", "/no/such"], "expected a model repository"),
        (["serve", "--release", "7"], "release"),
        (["classify"], "give either TEXT or --conversation"),
        (["classify", "hi", "--url", "127.0.0.1:1"], "127.0.0.1:1"),
        (["classify", "hi", "--deadline", "0"], "--deadline"),
        (["export", "x", "--family", "f", "--policy", "/no/policy.yaml"], "no such policy file"),
        (
            ["export", "x", "--family", "f", "--policy", "policies/children.yaml", "--policy", "p.yaml"],
            "p.yaml: no such",
        ),
        (["export", "x", "--family", "f", *["--policy", "policies/children.yaml"] * 2], "got 'children' 2 times"),
        (["inspect", "/no/checkpoint", "--policy", "policies/children.yaml"], "folder, hub id or GGUF file"),
        (["inspect", "x", "--policy", "README.md"], "README.md:3: not valid YAML"),
        (["export", "x", "--family", "lama", "--policy", "policies/children.yaml"], "expected a guard family among"),
        (["policy", "check", "--release", "77"], "expected a release manifest"),
        (["explode"], "No such command"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    """A typo must end in one clear line and a non-zero status."""
    done = run(*arguments)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
