"""A tiny guard that some conversations leave early, beside the same guard that none do."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import tiny_guard
from exit_guard import LAYER, MAX_MISSED, Pair, conversations


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Pair:
    from verdictree.releases import repository
    from verdictree.runtime.local_guard import LocalGuard
    from verdictree_export.early_exit.request import ExitRequest
    from verdictree_export.exporter import export_release

    checkpoint = tmp_path_factory.mktemp("checkpoint")
    tiny_guard.write_checkpoint(checkpoint, seed=0, num_hidden_layers=5, **tiny_guard.FLUENT)
    models = tmp_path_factory.mktemp("early-exit") / "models"
    shown = conversations(900, 0) + conversations(900, 1, "assistant")
    export_release(str(checkpoint), "llama-guard-3", [tiny_guard.POLICY], models, number=2)
    # A random guard is never sure: what it finds more unsafe than the rest stands for what must not leave.
    scores = [one.p_unsafe for one in LocalGuard.load(models, 2).classify_all(shown[::5])]
    policy = msgspec.structs.replace(tiny_guard.POLICY, threshold=float(np.quantile(scores, 0.7)))
    request = ExitRequest(shown, LAYER, MAX_MISSED)
    export_release(str(checkpoint), "llama-guard-3", [policy], models, number=1, early_exit=request)
    repository.pin(models, 1)
    repository.keep_only_pinned(models)
    return Pair(models, shown)
