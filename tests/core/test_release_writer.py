"""The one writer of releases, with real processes beside and on top of each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from verdictree.errors import InvalidRelease, NotWritable, ReleaseTaken
from verdictree.releases import repository as repositories
from verdictree.releases import writer as release_writer
from verdictree.releases.calibration import Calibration, Calibrator, Outcome
from verdictree.releases.journal import Journal
from verdictree.releases.release import FORMAT_WITHOUT_EXIT, Release

TEMPLATE = Path(__file__).parents[2] / "model_repository"
MANIFEST = Release.load(Path(__file__).parents[1] / "old_releases" / "format_1" / "guard_lm" / "1")


def release_of(draft) -> Release:
    """A release whose graph is a few bytes: a writer looks at its files, not into them."""
    (draft.folder("guard_lm") / "model.onnx").write_text(f"graph {draft.number}")
    return msgspec.structs.replace(MANIFEST, files={})


def write(repository, number=None, **options):
    with release_writer.new(repository, "export", number, template=TEMPLATE) as draft:
        return draft.commit(release_of(draft), **options)


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Says its number, and commits when it is told to; or is killed before a step of the commit.
WRITER = """
import os, signal, sys
from pathlib import Path
from test_release_writer import TEMPLATE, release_of, release_writer
repository, kill_at = Path(sys.argv[1]), int(sys.argv[2])
steps = iter(range(1000))
def killed(original):
    def step(*args, **options):
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)
    return step
with release_writer.new(repository, "export", template=TEMPLATE) as draft:
    print(draft.number, flush=True)
    sys.stdin.readline()
    for name in ("rename", "write_bytes", "write_text", "mkdir", "unlink"):
        setattr(Path, name, killed(getattr(Path, name)))
    draft.commit(release_of(draft))
print("done", flush=True)
"""


def start(repository, kill_at=-1):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", WRITER, str(repository), str(kill_at)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_release_is_whole_pinned_and_in_the_journal(tmp_path):
    """A first release that nothing serves, and one that nobody can account for."""
    repository = tmp_path / "models"
    first, second = write(repository), write(repository, reason="better")
    assert Release.load_verified(repository, 2) == second and (second.format, second.number) == (FORMAT_WITHOUT_EXIT, 2)
    assert repositories.pinned(repository) == 1 == first.number and repositories.versions(repository) == (1,)
    lines = [(one.action, one.release, one.stable, one.reason) for one in Journal(repository).entries()]
    assert lines == [("export", 1, 1, ""), ("export", 2, 1, "better")]
    assert not list(repository.glob(".release-*"))


def test_writers_at_the_same_time_have_numbers_of_their_own(tmp_path):
    """A writer that removes what another one is writing under the same number."""
    repository = tmp_path / "models"
    processes = [start(repository) for _ in range(5)]
    try:
        numbers = [int(process.stdout.readline()) for process in processes]
        assert sorted(numbers) == [1, 2, 3, 4, 5]
        with pytest.raises(ReleaseTaken, match="another process is writing release 3"):
            write(repository, 3)
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.stdout.readline() for process in processes] == ["done\n"] * 5
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert repositories.releases(repository) == (1, 2, 3, 4, 5)
    for number in numbers:
        assert Release.load_verified(repository, number).number == number
        assert (repository / f"guard_lm/{number}/model.onnx").read_text() == f"graph {number}"
    assert repositories.pinned(repository) in numbers


def test_a_writer_killed_at_any_step(tmp_path):
    """Half a release that counts as one, a number that stays taken, and one that pins nothing."""
    for step in range(1000):
        repository = tmp_path / str(step)
        with start(repository, step) as process:
            process.stdout.readline()
            process.stdin.write("go\n")
            process.stdin.flush()
            through = process.stdout.readline() == "done\n"
        assert process.returncode == (0 if through else -signal.SIGKILL)
        for number in repositories.releases(repository):
            assert Release.load_verified(repository, number) and repositories.pinned(repository) == number
        write(repository)
        found = repositories.releases(repository)
        assert found in ((1,), (1, 2)) and repositories.pinned(repository) == 1
        assert all(Release.load_verified(repository, number) for number in found)
        assert not list(repository.glob(".release-*"))
        if through:
            break
    assert step > 5


def test_a_commit_waits_for_a_rollout_but_a_draft_does_not(tmp_path):
    """An export that blocks a rollout for minutes, or is lost since one runs when it ends."""
    repository = tmp_path / "models"
    write(repository)
    with start(repository) as process:
        with Journal(repository, "operator").lock("stage"):
            assert process.stdout.readline() == "2\n"
            process.stdin.write("go\n")
            process.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            assert repositories.releases(repository) == (1,)
        assert process.stdout.readline() == "done\n"
    assert repositories.releases(repository) == (1, 2)


@pytest.mark.parametrize("there", [False, True], ids=["no repository", "an empty one"])
def test_a_first_draft_that_fails_leaves_nothing(tmp_path, there):
    """A repository of configurations without a release."""
    repository = tmp_path / "a" / "models"
    if there:
        repository.mkdir(parents=True)
    with pytest.raises(RuntimeError), release_writer.new(repository, "export", template=TEMPLATE) as draft:
        release_of(draft)
        raise RuntimeError
    assert repository.exists() == there and not list(tmp_path.glob("a/models/*"))


def test_a_draft_that_fails_leaves_the_others(tmp_path):
    """A failed export that takes a release, or a configuration, with it."""
    repository = tmp_path / "models"
    write(repository)
    before = everything(repository)
    with pytest.raises(RuntimeError), release_writer.new(repository, "export", template=TEMPLATE) as draft:
        release_of(draft)
        raise RuntimeError
    assert everything(repository) == before


def test_a_number_that_is_taken(tmp_path):
    """An export that writes over the release in service, a staged one, or one to go back to."""
    repository = tmp_path / "models"
    write(repository)
    write(repository)
    before = everything(repository)
    for number in (1, 2):
        with pytest.raises(ReleaseTaken, match=f"has a release {number}; leave the number out"):
            write(repository, number)
    assert everything(repository) == before
    assert write(repository, 7).number == 7 and write(repository).number == 8


def test_a_calibration_that_does_not_fit_commits_nothing(tmp_path):
    """A release in service without the calibration that it was to have."""
    repository = tmp_path / "models"

    def outcome(code):
        return Outcome(code, Calibrator(), 0.5, "r", 1, 1)

    fitted = Calibration(
        version="1.1",
        created="",
        release=1,
        policy="tiny",
        manifest_sha256="",
        guard_sha256="",
        data={},
        unlabelled="masked",
        unsafe=outcome("unsafe"),
        categories=(outcome("S99"),),
    )
    with pytest.raises(InvalidRelease, match="expected the categories of a policy of release 1"):
        write(repository, fitted={"tiny": fitted})
    assert not repository.exists()


def test_a_template_without_a_release_becomes_one(tmp_path):
    """A checkout's own model_repository, whose folder 1 holds adapters only, counting as taken."""
    repository = tmp_path / "models"
    shutil.copytree(
        TEMPLATE, repository, ignore=shutil.ignore_patterns(".rollout", "[2-9]*", "release.json", "*.bin", "*.onnx")
    )
    assert write(repository, 1).number == 1 and Release.load_verified(repository, 1)


def test_a_file_in_place_of_the_repository(tmp_path):
    """A traceback where no repository can be."""
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match="expected to write"):
        write(tmp_path / "file" / "models")
