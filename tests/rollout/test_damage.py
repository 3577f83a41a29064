"""Candidates that must never answer anybody."""

from __future__ import annotations

import shutil
import time

import msgspec
import numpy as np
import pytest

from verdictree.errors import InvalidRelease
from verdictree.releases import repository as repositories
from verdictree.releases.release import COMPOSING_MODELS, MANIFEST, Release, sha256
from verdictree_client.rollout import Refused, StageFailed

pytestmark = pytest.mark.server


def write_manifest(repository, release):
    for model in COMPOSING_MODELS:
        (repository / model / str(release.number) / MANIFEST).write_bytes(release.to_json())


def wrong_hash(repository):
    graph = repository / "guard_lm/2/model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)


def truncated_weights_with_a_fitting_hash(repository):
    graph = repository / "guard_lm/2/model.onnx"
    graph.write_bytes(graph.read_bytes()[:2000])
    release = Release.load(repository / "guard_lm/2")
    write_manifest(
        repository,
        msgspec.structs.replace(release, files={**release.files, "guard_lm/2/model.onnx": sha256(graph)}),
    )


def wrong_tree(repository):
    release = Release.load(repository / "guard_lm/2")
    tree = msgspec.structs.replace(release.tree, verdict_tokens=tuple(reversed(release.tree.verdict_tokens)))
    write_manifest(repository, msgspec.structs.replace(release, tree=tree))


def calibration_of_another_release(repository):
    (repository / "guard_marginals/2/calibration.json").write_text('{"sha256": "", "calibration": {}}')


def config_error(repository):
    config = repository / "guard_marginals/config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size", "max_batch_sizes"))


def restore(whole, repository):
    """Put everything back but release 1: a server maps a live release's weights, so they must not be written to."""
    for path in whole.rglob("*"):
        relative = path.relative_to(whole)
        if path.is_file() and relative.parts[1:2] != ("1",):
            shutil.copy(path, repository / relative)


DAMAGES = {
    wrong_hash: (InvalidRelease, "not the file that was exported"),
    truncated_weights_with_a_fitting_hash: (StageFailed, "cannot load model.onnx"),
    wrong_tree: (StageFailed, "not release 2 as it was exported: expected p_unsafe"),
    calibration_of_another_release: (InvalidRelease, "calibration.json' is damaged"),
    config_error: (InvalidRelease, "max_batch_sizes"),
}


def test_damaged_candidates_never_become_ready(rollout, server, saturated, p_unsafe, repository, tmp_path):
    """A damaged candidate that takes the live release down, or that can be promoted."""
    whole = tmp_path / "whole"
    shutil.copytree(repository, whole, ignore=shutil.ignore_patterns(".rollout"))
    windows = {}
    with saturated(server, num_threads=4) as load:
        steady = (time.time(), time.time() + 4.0)
        time.sleep(4.0)
        for damage, (error, said) in DAMAGES.items():
            damage(repository)
            begin = time.time()
            with pytest.raises(error, match=said):
                rollout.stage(2)
            # A refusal before the load takes a moment; over two seconds one hiccup of the machine is no median.
            time.sleep(max(0.0, begin + 2.0 - time.time()))
            windows[damage.__name__] = (begin, time.time())
            restore(whole, repository)
            (repository / "guard_marginals/2/calibration.json").unlink(missing_ok=True)
            found = rollout.status()
            assert (found.serving, found.candidate, found.loaded, found.problem) == (1, None, (1,), ""), damage
            assert repositories.versions(repository) == (1,)
            with pytest.raises(Refused, match="expected a staged release"):
                rollout.promote()
    assert load.failures == [] and load.mixed(p_unsafe) == []
    assert {one[3] for one in load.results} == {1}
    usual = np.median(load.milliseconds([steady]))
    for name, window in windows.items():
        during = load.milliseconds([window])
        print(f"{name}: median {np.median(during):.1f} ms, steady {usual:.1f} ms")
        # Loading a candidate takes processor time; loading the live one anew would stop requests for seconds.
        assert np.median(during) <= 4 * usual, name
