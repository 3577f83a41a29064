"""What rollouts do to the files of a repository."""

from __future__ import annotations

import pytest

from verdictree.errors import InvalidRelease
from verdictree.releases import calibration as calibrations
from verdictree.releases import model_config, startup
from verdictree.releases import repository as repositories
from verdictree.releases.journal import Journal
from verdictree.releases.release import COMPOSING_MODELS, Release, sha256
from verdictree_client.rollout import Refused, Rollout
from verdictree_client.rollout import releases as release_files


def blocks(repository):
    """What the repository takes on disk; a file of several names once."""
    return sum({(one := path.stat()).st_ino: one.st_blocks for path in repository.rglob("*")}.values())


def test_derived_release_shares_the_weights(repository):
    """A copy of the weights for each change of a threshold, and a release that is not whole."""
    before = blocks(repository)
    release = release_files.derive(repository, 1, None, {None: 0.2, "S1": 0.4, "unsafe": 0.1})
    assert release.number == 3 and Release.load_verified(repository, 3) == release
    assert release.files == Release.load(repository / "guard_lm/1").files
    weights = (repository / "guard_lm/1/model.onnx").stat().st_blocks
    assert blocks(repository) - before < weights
    (found,) = calibrations.load(repository / "guard_marginals/3", release).values()
    assert [one.threshold for one in (found.unsafe, *found.categories)] == [0.1, 0.4, 0.2, 0.2]
    assert repositories.pinned(repository) == 1 and repositories.versions(repository) == (1,)
    assert not list(repository.glob(".release-*"))


def test_derive_refuses_what_does_not_fit(repository):
    """Thresholds for another policy, half a set of them, and another release's calibration."""
    with pytest.raises(Refused, match="expected codes among unsafe, S1, S2, S10, got S99"):
        release_files.derive(repository, 1, None, {None: 0.2, "S99": 0.1})
    with pytest.raises(Refused, match="expected a threshold for unsafe, S2, S10 too"):
        release_files.derive(repository, 1, None, {"S1": 0.2})
    release_files.derive(repository, 1, None, {None: 0.2})
    with pytest.raises(Refused, match="fitted for release 2, got one for release 3"):
        release_files.derive(repository, 2, repository / "guard_marginals/3/calibration.json", {})
    with pytest.raises(InvalidRelease, match="damaged"):
        release_files.derive(repository, 2, repository / "guard_marginals/3/no-such.json", {})
    assert repositories.releases(repository) == (1, 2, 3)


def test_deleted_release_leaves_the_others_whole(repository):
    """A deletion that takes a shared graph, or the adapters that every export copies, along."""
    release_files.derive(repository, 1, None, {None: 0.2})
    release_files.derive(repository, 3, None, {None: 0.3})
    with pytest.raises(Refused, match="release 3, 4 shares its graph"):
        release_files.delete(repository, 1)
    release_files.delete(repository, 3)
    with pytest.raises(Refused, match="release 4 shares its graph"):
        release_files.delete(repository, 1)
    assert Release.load_verified(repository, 4).version("guard_lm") == 1
    release_files.delete(repository, 4)
    release_files.delete(repository, 1)
    assert repositories.releases(repository) == (2,)
    left = [path for path in repository.glob("*/1/*") if path.is_file()]
    assert {path.name for path in left} == {"model.py"}
    release_files.delete(repository, 2)
    assert not list(repository.glob("*/2"))


@pytest.mark.server
def test_retire_keeps_what_is_needed(rollout, repository):
    """A rollout that deletes the release in service, or the one to return to."""
    rollout.stage(2)
    with pytest.raises(Refused, match="not live, got 1"):
        rollout.retire(1)
    rollout.promote(force=True, reason="test")
    with pytest.raises(Refused, match="`rollback` returns to 1"):
        rollout.retire(1, delete=True)
    rollout.retire(1)
    assert rollout.status().loaded == (2,) and repositories.releases(repository) == (1, 2)
    assert rollout.rollback() == 1, "an unloaded release is loaded again for a rollback"
    rollout.retire(2, delete=True)
    assert rollout.status().loaded == (1,) and repositories.releases(repository) == (1,)
    with pytest.raises(Refused, match="nothing was promoted"):
        rollout.rollback()
    with pytest.raises(Refused, match="expected a release of"):
        rollout.retire(2)


@pytest.mark.server
def test_live_release_changed_on_disk_is_noticed(rollout, repository):
    """A load of the candidate that brings another calibration of the live release in with it."""
    manifest = Release.load(repository / "guard_marginals/1")
    release_files.derive(repository, 1, None, {None: 0.2})
    ((name, fitted),) = calibrations.read(repository / "guard_marginals/3/calibration.json").items()
    import msgspec

    digest = sha256(repository / "guard_marginals/1/release.json")
    moved = msgspec.structs.replace(fitted, release=manifest.number, manifest_sha256=digest, version="1.1")
    calibrations.save({name: moved}, repository / "guard_marginals/1")
    from verdictree_client.rollout import StageFailed

    with pytest.raises(StageFailed, match=r"expected \(release, calibration\) \(1, '1.1'\), got \(1, None\)"):
        rollout.stage(2)


def test_pin_is_whole_at_every_step(repository, monkeypatch):
    """A crash between two files that leaves an ensemble whose steps do not load its release."""
    original = repositories.replace

    def check(path, text):
        original(path, text)
        for model in COMPOSING_MODELS:
            served = model_config.versions((repository / model / "config.pbtxt").read_text())
            assert repositories.pinned(repository) in served

    monkeypatch.setattr(repositories, "replace", check)
    repositories.pin(repository, 2)
    assert repositories.pinned(repository) == 2 and repositories.versions(repository) == (1, 2)
    repositories.write_ensemble(repository, repositories.CANDIDATE, 1)
    repositories.keep_only_pinned(repository)
    assert repositories.versions(repository) == (2,) and repositories.candidate(repository) is None


def test_start_ends_what_was_cut_off(repository):
    """A journal with an action that never ends, and a candidate that a restart brings back."""
    journal = Journal(repository, "victim")
    with journal.lock("promote"):
        journal.write("promote", "begun", stable=1, release=2)
        repositories.set_versions(repository, {1, 2})
        repositories.write_ensemble(repository, repositories.CANDIDATE, 2)
        assert startup.prepare(repository, None) == 1, "an operator at work is left alone"
        assert repositories.candidate(repository) == 2 and journal.unfinished()
    repositories.pin(repository, 2)
    assert startup.prepare(repository, None) == 2
    assert journal.unfinished() is None and journal.former(2) == 1
    assert repositories.candidate(repository) is None and repositories.versions(repository) == (2,)
    assert startup.prepare(repository, 1) == 1 and journal.former(1) == 2


def test_journal_survives_a_cut_off_line(repository):
    """A journal that cannot be read, or written on, after a crash in the middle of a line."""
    journal = Journal(repository, "me")
    with journal.lock("stage"):
        journal.write("stage", "begun", stable=1, release=2)
        with (repository / ".rollout/journal.jsonl").open("ab") as file:
            file.write(b'{"number": 1, "tim')
        number = journal.entries()[-1].number
        journal.recover(1)
    assert [(one.number, one.event) for one in journal.entries()[-2:]] == [(number, "begun"), (number, "recovered")]


def test_rollback_goes_back_step_by_step(repository):
    """A rollback that swings between two releases instead of going back."""
    journal = Journal(repository, "me")
    with journal.lock("test"):
        for action, event, before, stable in (
            ("promote", "done", 1, 2),
            ("promote", "failed", 2, 2),
            ("promote", "recovered", 2, 3),
        ):
            journal.write(action, event, stable=stable, details={"before": before})
        assert journal.former(3) == 2
        journal.write("rollback", "done", stable=2, details={"before": 3})
        assert journal.former(2) == 1
        journal.write("rollback", "done", stable=1, details={"before": 2})
        assert journal.former(1) is None


def test_missing_repository_is_named(tmp_path):
    """An empty repository that a wrong path creates."""
    with Rollout(tmp_path / "none", "127.0.0.1:1") as rollout, pytest.raises(InvalidRelease, match="none"):
        rollout.status()
    assert not (tmp_path / "none").exists()
