"""Staging: a release is verified, loaded beside the live one, warmed up and tried, before anybody's request sees it.

The composing models first load it from a configuration that is only the server's. The files on disk name it when it
has loaded, so a server that dies in between starts with what it served before.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from verdictree import repository as repositories
from verdictree.release import COMPOSING_MODELS
from verdictree.repository import CANDIDATE, ENSEMBLE
from verdictree_client.rollout import configs, smoke
from verdictree_client.rollout.errors import ControlFailed, RolloutError, ServerAway, StageFailed
from verdictree_client.rollout.server import Server


def stage(repository: Path, server: Server, number: int) -> None:
    """Load release `number` as `guard_candidate`. Whatever raises, the server and the disk are as they were."""
    release, calibration = smoke.verified(repository, number)
    _check_live(repository, server)
    repositories.compile_adapters(repository, number)
    former, before = repositories.candidate(repository), set(repositories.versions(repository))
    # All are read before any is loaded: a file that cannot be read changes nothing.
    wanted = {model: configs.with_versions(repository, model, before | {number}) for model in COMPOSING_MODELS}
    try:
        for model, config in wanted.items():
            server.load(model, config)
        repositories.set_versions(repository, before | {number})
        repositories.write_ensemble(repository, CANDIDATE, number)
        server.load(CANDIDATE)
        smoke.check(server, CANDIDATE, release, calibration)
        smoke.warm_up(server, CANDIDATE, release)
    except RolloutError as exc:
        _undo(repository, server, before, former)
        if isinstance(exc, ControlFailed):
            raise StageFailed(f"release {number} did not load: {exc}") from exc
        raise


def unload(repository: Path, server: Server, number: int) -> None:
    """Let the server forget release `number`, which nothing is pinned to."""
    repositories.set_versions(repository, set(repositories.versions(repository)) - {number})
    for model in COMPOSING_MODELS:
        server.load(model, configs.with_versions(repository, model, set(repositories.versions(repository))))


def drop_candidate(repository: Path, server: Server) -> None:
    """Let nothing be staged; the release stays loaded."""
    server.unload(CANDIDATE)
    repositories.remove_ensemble(repository, CANDIDATE)


def is_loaded(server: Server, number: int) -> bool:
    """Whether each composing model has release `number` ready: without that, pinning to it would drop the guard."""
    return number in server.ready_versions(*COMPOSING_MODELS)


def _check_live(repository: Path, server: Server) -> None:
    """Refuse to load anything while the live release's files are not what is served: a load could bring them in."""
    release, calibration = smoke.verified(repository, repositories.pinned(repository))
    smoke.check(server, ENSEMBLE, release, calibration)


def _undo(repository: Path, server: Server, before: set[int], former: int | None) -> None:
    # The disk first: where the server is away, the disk is all that a later server will know.
    if former is None:
        repositories.remove_ensemble(repository, CANDIDATE)
    else:
        repositories.write_ensemble(repository, CANDIDATE, former)
    repositories.set_versions(repository, before)
    with contextlib.suppress(ServerAway):
        server.load(CANDIDATE) if former is not None else server.unload(CANDIDATE)
        for model in COMPOSING_MODELS:
            server.load(model, configs.with_versions(repository, model, before))
