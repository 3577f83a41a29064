"""A release that is damaged while it is served, and a machine that is not fit to serve."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest
from supervised import VERDICTREE, wait_until

from verdictree_client import GuardError
from verdictree_client.rollout import Rollout

pytestmark = pytest.mark.server


def overwrite(path) -> None:
    """In place, as a careless copy does: whoever has mapped the file sees it change."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(os.urandom(size))


def test_a_file_that_is_changed_in_place_closes_the_server(serve, repository):
    """Thousands of wrong answers from overwritten weights, and every light is green."""
    server = serve(repository)
    with server.client() as client:
        before = client.classify("hello").p_unsafe
        overwrite(repository / "guard_lm" / "1" / "weights.bin")
        assert wait_until(lambda: not server.is_ready(), 5.0)
        assert "release 1 is damaged: its file guard_lm/1/weights.bin was changed on disk" in server.get("/ready")[1]
        assert "verdictree_release_damaged 1.0" in server.get("/metrics")[1]
        assert wait_until(lambda: _error(client) is not None, 5.0)
        assert "release 1 is damaged" in _error(client)
    assert 0 <= before <= 1


def test_a_rollback_from_a_damaged_release_opens_the_server(serve, repository):
    """The way back from a damaged release is a restart, which is refused as well."""
    server = serve(repository)
    with Rollout(repository, server.said["triton"]) as rollout, server.client() as client:
        rollout.stage(2)
        rollout.promote(force=True, reason="test")
        overwrite(repository / "guard_lm" / "2" / "weights.bin")
        assert wait_until(lambda: not server.is_ready(), 15.0)
        rollout.rollback()
        assert wait_until(server.is_ready, 10.0), server.get("/ready")[1]
        assert client.classify("hello").release == 1


def test_a_guard_that_answers_otherwise_closes_the_server(serve, repository):
    """What no file tells, memory that decays or a graph that was replaced, is never noticed."""
    # The golden conversations of another release, under the hashes of this one: what the server computes is not what
    # they say. The manifest is no file of its own list.
    for model in ("guard_tokenizer", "guard_lm", "guard_marginals"):
        path = repository / model / "1" / "release.json"
        text = path.read_text()
        path.write_text(_with_other_golden(text))
    server = serve(repository, "--self-check-seconds", "1")
    assert wait_until(lambda: not server.is_ready(), 15.0)
    assert "expected p_unsafe" in server.get("/ready")[1]
    assert 'verdictree_self_checks_total{outcome="failed"} 1.0' in server.get("/metrics")[1]


def test_a_whole_release_passes_its_checks(serve, repository):
    """A check that fails by itself takes a healthy server out of service."""
    server = serve(repository, "--self-check-seconds", "0.5", "--response-cache-mb", "16")
    passed = 'verdictree_self_checks_total{outcome="passed"} '
    assert wait_until(lambda: passed in (text := server.get("/metrics")[1]) and "} 4.0" in text, 20.0)
    assert server.is_ready()
    (repository / "guard_lm" / "1" / "weights.bin").touch()
    with Rollout(repository, server.said["triton"]) as rollout:
        rollout.stage(2)
        rollout.canary(0.5)
        assert not wait_until(lambda: not server.is_ready(), 5.0)


def _with_other_golden(text: str) -> str:
    import msgspec

    from verdictree.releases.release import Release

    release = msgspec.json.decode(text.encode(), type=Release)
    golden = tuple(msgspec.structs.replace(one, p_unsafe=1 - one.p_unsafe) for one in release.golden)
    return msgspec.structs.replace(release, golden=golden).to_json().decode()


def _error(client) -> str | None:
    try:
        client.classify("hello")
    except GuardError as error:
        return str(error)
    return None


def started(repository, *options, **popen) -> str:
    command = [VERDICTREE, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, **popen)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_too_few_files_are_named(repository):
    """ "ready" is printed, and then the server dies of a metrics port in use."""
    said = started(repository, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    assert "expected at least 512 open files allowed, got 64" in said


def test_a_temporary_folder_that_is_missing_is_named(repository, tmp_path):
    """A traceback of Python's tempfile."""
    environment = {**os.environ, "TMPDIR": str(tmp_path / "none")}
    (repository / "none").mkdir()
    done = started_in(repository, environment)
    assert done is None or "temporary folder" in done


def started_in(repository, environment) -> str | None:
    """What a start says under an environment; None where it starts, since Python found another temporary folder."""
    command = [VERDICTREE, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0"]
    process = subprocess.Popen([*command, "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = process.stdout.readline()
    process.terminate()
    _, error = process.communicate(timeout=60)
    return None if line else error.decode()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system takes rights that this user has not")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_temporary_folder_is_named(repository, small_disk):
    """A traceback out of a copy that found no space."""
    said = started(repository, env={**os.environ, "TMPDIR": str(small_disk)})
    assert f"MB free in the temporary folder {small_disk}" in said
