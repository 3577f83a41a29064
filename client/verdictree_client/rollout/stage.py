"""Staging: a release is verified, loaded beside the live one, warmed up and tried, before anybody's request sees it.

The composing models first load it from a configuration that is only the server's. The files on disk name it when it
has loaded, so a server that dies in between starts with what it served before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from verdictree.errors import VerdictreeError
from verdictree.files import spare_files
from verdictree.releases import adapters
from verdictree.releases import repository as repositories
from verdictree.releases.release import COMPOSING_MODELS, GRAPH_MODEL, MARGINALS_MODEL
from verdictree.releases.repository import CANDIDATE, ENSEMBLE
from verdictree_client.rollout import configs, smoke
from verdictree_client.rollout.errors import ControlFailed, ServerAway, StageFailed
from verdictree_client.rollout.server import Server


def stage(repository: Path, server: Server, number: int) -> None:
    """Load release `number` as `guard_candidate`. Whatever raises, the server and the disk are as they were.

    Steps that it shares with a release that is loaded are not loaded again.
    """
    steps = repositories.steps(repository, number)
    models = _to_load(server, steps, number)
    release, calibration = smoke.verified(repository, number, models)
    _check_live(repository, server, models)
    adapters.refresh(repository, {model: steps[model] for model in models})
    former, before = repositories.candidate(repository), set(repositories.versions(repository))
    # All are read before any is loaded: a file that cannot be read changes nothing.
    wanted = _configs(repository, server, before | {number}, models)
    try:
        for model, config in wanted.items():
            server.load(model, config)
        repositories.set_versions(repository, before | {number})
        repositories.write_ensemble(repository, CANDIDATE, number)
        load_ensemble(repository, server, CANDIDATE)
        smoke.check(server, CANDIDATE, release, calibration)
        if GRAPH_MODEL in models:  # a shared one is warm
            smoke.warm_up(server, CANDIDATE, release)
    except VerdictreeError as exc:
        with spare_files.taken():
            _undo(repository, server, before, former)
        if isinstance(exc, ControlFailed):
            raise StageFailed(f"release {number} did not load: {exc}") from exc
        raise


def unload(repository: Path, server: Server, number: int) -> None:
    """Let the server forget release `number`, which nothing is pinned to; steps that others share stay loaded."""
    repositories.set_versions(repository, set(repositories.versions(repository)) - {number})
    load_versions(repository, server, repositories.versions(repository))


def drop_candidate(repository: Path, server: Server) -> None:
    """Let nothing be staged; the release stays loaded."""
    server.unload(CANDIDATE)
    repositories.remove_ensemble(repository, CANDIDATE)


def load_versions(repository: Path, server: Server, numbers: Iterable[int]) -> None:
    """Let the server hold the steps of these releases, and no others."""
    for model, config in _configs(repository, server, numbers, COMPOSING_MODELS).items():
        server.load(model, config)


def load_ensemble(repository: Path, server: Server, name: str) -> None:
    """Load an ensemble as it is on disk."""
    server.load(name, configs.ensemble(repository, name, server.batch_size()))


def loaded(repository: Path, server: Server) -> tuple[int, ...]:
    """The releases of which every step is ready, in order."""
    ready = {model: server.ready_versions(model) for model in COMPOSING_MODELS}
    steps = {number: repositories.steps(repository, number) for number in ready[MARGINALS_MODEL]}
    return tuple(sorted(n for n, versions in steps.items() if all(versions[model] in ready[model] for model in ready)))


def is_loaded(repository: Path, server: Server, number: int) -> bool:
    """Whether every step of release `number` is ready: without that, pinning to it would drop the guard."""
    return number in loaded(repository, server)


def _to_load(server: Server, steps: Mapping[str, int], number: int) -> list[str]:
    """The models to load for a release: all but those that have loaded its step for another release already."""
    return [
        model for model, version in steps.items() if version == number or version not in server.ready_versions(model)
    ]


def _configs(repository: Path, server: Server, numbers: Iterable[int], models: Iterable[str]) -> dict[str, str]:
    size, versions = server.batch_size(), repositories.step_versions(repository, numbers)
    return {model: configs.with_versions(repository, model, versions[model], size) for model in models}


def _check_live(repository: Path, server: Server, models: Iterable[str]) -> None:
    """Refuse to load these models while the live release's files are not what is served: a load could bring them in."""
    release, calibration = smoke.verified(repository, repositories.pinned(repository), models)
    smoke.check(server, ENSEMBLE, release, calibration)


def _undo(repository: Path, server: Server, before: set[int], former: int | None) -> None:
    # The disk first: where the server is away, the disk is all that a later server will know.
    if former is None:
        repositories.remove_ensemble(repository, CANDIDATE)
    else:
        repositories.write_ensemble(repository, CANDIDATE, former)
    repositories.set_versions(repository, before)
    with contextlib.suppress(ServerAway):
        load_ensemble(repository, server, CANDIDATE) if former is not None else server.unload(CANDIDATE)
        load_versions(repository, server, before)
