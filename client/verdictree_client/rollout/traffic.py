"""Who answers live requests: `guard`, pinned to a release or split between two. Each change is one load of `guard`.

Triton loads the new `guard` beside the old one and swaps them; requests that have begun end where they began.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from verdictree.errors import VerdictreeError
from verdictree.files import spare_files
from verdictree.releases import adapters
from verdictree.releases import repository as repositories
from verdictree.releases.journal import FOLDER
from verdictree.releases.repository import CANDIDATE, ENSEMBLE, LIVE, ROUTER
from verdictree_client.rollout import configs, stage
from verdictree_client.rollout.configs import Served, Split
from verdictree_client.rollout.errors import ControlFailed, ServerAway
from verdictree_client.rollout.releases import fingerprint
from verdictree_client.rollout.server import Server


def served(server: Server) -> Served | None:
    """What `guard` is on the server; None where it is not loaded."""
    return configs.served(server.config(ENSEMBLE), server.config(ROUTER))


def serve_pinned(repository: Path, server: Server) -> None:
    """Let `guard` be what the disk says: pinned, all requests answered by one release."""
    number = repositories.pinned(repository)
    if not stage.is_loaded(repository, server, number):
        stage.load_versions(repository, server, {*repositories.versions(repository), number})
    stage.load_ensemble(repository, server, ENSEMBLE)
    end_split(repository, server)


def split(repository: Path, server: Server, wanted: Split) -> None:
    """Let `guard` be split as wanted between the pinned release and the staged one.

    Whatever raises, who answers is as it was.
    """
    candidate = repositories.pinned(repository, CANDIDATE)
    if not wanted:
        serve_pinned(repository, server)
        return
    before = served(server)
    try:
        _route(repository, server, candidate, wanted)
    except VerdictreeError:
        with contextlib.suppress(ServerAway), spare_files.taken():
            _restore(repository, server, before)
        raise


def _route(repository: Path, server: Server, candidate: int, wanted: Split) -> None:
    if not server.ready_versions(ROUTER):
        adapters.refresh(repository, {ROUTER: 1})
    repositories.write_ensemble(repository, LIVE, repositories.pinned(repository))
    stage.load_ensemble(repository, server, LIVE)
    size = server.batch_size()
    server.load(ROUTER, configs.router(repository, candidate, wanted, record(repository, candidate).name, size))
    server.load(ENSEMBLE, configs.routed(repository, size))
    if served(server) != Served(repositories.pinned(repository), candidate, wanted):
        raise ControlFailed(f"expected the server to split as {wanted}, got {served(server)}")


def _restore(repository: Path, server: Server, before: Served | None) -> None:
    """Bring back the former split, or else let the pinned release answer everything."""
    if before is not None and before.candidate is not None:
        with contextlib.suppress(ControlFailed):
            _route(repository, server, before.candidate, before.split)
            return
    serve_pinned(repository, server)


def end_split(repository: Path, server: Server) -> None:
    """Unload what a split needed, once `guard` does without it."""
    server.unload(ROUTER)  # before what it asks
    server.unload(LIVE)
    repositories.remove_ensemble(repository, LIVE)


def record(repository: Path, candidate: int) -> Path:
    """Where the shadow's pairs of the pinned release and this candidate lie: a file for this pair of contents."""
    live = repositories.pinned(repository)
    contents = "-".join(fingerprint(repository, number)[:8] for number in (live, candidate))
    return repository / FOLDER / f"shadow-{live}-{candidate}-{contents}.jsonl"
