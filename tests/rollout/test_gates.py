"""Candidates that are made worse on purpose, and one that is not."""

from __future__ import annotations

import shutil

import msgspec
import numpy as np
import onnx
import pytest

from verdictree.conversation import Conversation, Message
from verdictree.releases import calibration as calibrations
from verdictree.releases.release import COMPOSING_MODELS, MANIFEST, Release, sha256
from verdictree_client.rollout import GatesFailed
from verdictree_comparison import Gates

pytestmark = pytest.mark.server
CONVERSATIONS = [Conversation((Message("user", f"Tell me {'more ' * (i % 11)}about {i}."),)) for i in range(240)]
# On a shared machine the two releases' latencies are not the subject here.
GATES = Gates(max_latency_ratio=10.0)
THRESHOLD = 0.05


@pytest.fixture
def calibrated(rollout):
    """Release 3, live: release 1 with thresholds that flag a part of the conversations."""
    release = rollout.derive(1, thresholds={None: THRESHOLD})
    rollout.stage(release.number)
    rollout.promote(force=True, reason="test")
    return release.number


def perturb_head(repository, number):
    """Give a derived release a graph of its own with a noisy language-model head, and the hashes that this has."""
    path = repository / f"guard_lm/{number}/model.onnx"
    base = Release.load(path.parent)
    for model_name in ("guard_lm", "guard_tokenizer"):
        shutil.copytree(base.folder(repository, model_name), repository / model_name / str(number), dirs_exist_ok=True)
    model = onnx.load(path)
    rng = np.random.default_rng(0)
    others = ("embed_tokens", "policies.")
    matrices = [
        one for one in model.graph.initializer if len(one.dims) == 2 and not any(name in one.name for name in others)
    ]
    head = max(matrices, key=lambda one: max(one.dims))  # no other matrix is as wide as the vocabulary
    values = onnx.numpy_helper.to_array(head)
    noisy = values + rng.normal(0, 0.5, values.shape).astype(np.float32)
    head.CopyFrom(onnx.numpy_helper.from_array(noisy, head.name))
    onnx.save(model, path)
    moved = {name.replace(f"/{base.shares}/", f"/{number}/", 1): digest for name, digest in base.files.items()}
    release = msgspec.structs.replace(base, shares=None, files=moved)
    name = f"guard_lm/{number}/model.onnx"
    golden = tuple(msgspec.structs.replace(one, tolerance=100.0) for one in release.golden)
    release = msgspec.structs.replace(release, files={**release.files, name: sha256(path)}, golden=golden)
    for model_name in COMPOSING_MODELS:
        (repository / model_name / str(number) / MANIFEST).write_bytes(release.to_json())
    folder = repository / f"guard_marginals/{number}"
    digest = sha256(folder / MANIFEST)
    fitted = calibrations.read(folder / "calibration.json").items()
    calibrations.save({name: msgspec.structs.replace(one, manifest_sha256=digest) for name, one in fitted}, folder)


def test_worse_candidates_fail_with_the_reason_named(rollout, calibrated, repository):
    """Harm let through by a new release, or good users blocked, without anyone being told."""
    same = rollout.derive(calibrated).number
    rollout.stage(same)
    compared = rollout.compare(CONVERSATIONS, GATES)
    assert compared.passed, compared.failed
    assert 20 <= compared.decision.num_live <= 220, "the conversations must be able to tell"
    assert compared.decision.num_to_safe == compared.decision.num_to_unsafe == 0

    doubled = rollout.derive(calibrated, thresholds={None: 2 * THRESHOLD}).number
    rollout.stage(doubled)
    with pytest.raises(GatesFailed, match="no comparison with the live release"):
        rollout.promote()
    compared = rollout.compare(CONVERSATIONS, GATES)
    assert any(reason.startswith("max_flips_to_safe for decision: expected at most 0.02") for reason in compared.failed)
    assert compared.decision.num_to_safe > 0 and compared.to_safe[0].text.startswith("Tell me")
    with pytest.raises(GatesFailed, match="max_flips_to_safe for decision"):
        rollout.promote()
    assert rollout.status().stable == calibrated

    perturbed = rollout.derive(calibrated).number
    perturb_head(repository, perturbed)
    rollout.stage(perturbed)
    compared = rollout.compare(CONVERSATIONS, GATES)
    assert {"max_psi", "max_ks"} & {reason.split()[0] for reason in compared.failed}
    with pytest.raises(GatesFailed, match="max_psi for"):
        rollout.promote()

    rollout.stage(same)  # whose comparison is remembered, since neither release has changed
    assert rollout.promote() == same
