"""Who answers live requests: `guard`, pinned to a release or split between two. Each change is one load of `guard`.

Triton loads the new `guard` beside the old one and swaps them; requests that have begun end where they began.
"""

from __future__ import annotations

from pathlib import Path

from verdictree import repository as repositories
from verdictree.journal import FOLDER
from verdictree.release import COMPOSING_MODELS
from verdictree.repository import CANDIDATE, ENSEMBLE, LIVE, ROUTER
from verdictree_client.rollout import configs
from verdictree_client.rollout.configs import Served, Split
from verdictree_client.rollout.errors import ControlFailed
from verdictree_client.rollout.releases import fingerprint
from verdictree_client.rollout.server import Server
from verdictree_client.rollout.stage import is_loaded


def served(server: Server) -> Served | None:
    """What `guard` is on the server; None where it is not loaded."""
    return configs.served(server.config(ENSEMBLE), server.config(ROUTER))


def serve_pinned(repository: Path, server: Server) -> None:
    """Let `guard` be what the disk says: pinned, all requests answered by one release."""
    number = repositories.pinned(repository)
    if not is_loaded(server, number):
        versions = set(repositories.versions(repository)) | {number}
        for model in COMPOSING_MODELS:
            server.load(model, configs.with_versions(repository, model, versions))
    server.load(ENSEMBLE, configs.direct(repository))
    end_split(repository, server)


def split(repository: Path, server: Server, wanted: Split) -> None:
    """Let `guard` be split as wanted between the pinned release and the staged one."""
    candidate = repositories.pinned(repository, CANDIDATE)
    if not wanted:
        serve_pinned(repository, server)
        return
    repositories.compile_adapters(repository, candidate)
    repositories.write_ensemble(repository, LIVE, repositories.pinned(repository))
    server.load(LIVE)
    server.load(ROUTER, configs.router(repository, candidate, wanted, record(repository, candidate).name))
    server.load(ENSEMBLE, configs.routed(repository))
    if served(server) != Served(repositories.pinned(repository), candidate, wanted):
        raise ControlFailed(f"expected the server to split as {wanted}, got {served(server)}")


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
