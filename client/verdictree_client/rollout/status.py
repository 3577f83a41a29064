"""Where a rollout stands: what the disk says, what the server does, and what was done last."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

import msgspec

from verdictree.releases import repository as repositories
from verdictree.releases.journal import Entry, Journal
from verdictree_client.rollout import stage, traffic
from verdictree_client.rollout.configs import Split
from verdictree_client.rollout.errors import ServerAway
from verdictree_client.rollout.server import Server

_SHOWN_ENTRIES = 5


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a repository and of the server on it.

    stable     the release that the disk pins: what a server serves that starts now
    former     the release that `rollback` returns to
    candidate  the staged release
    serving    the release that answers `guard` now, None where the server is away or has no guard
    loaded     the releases that the server holds ready
    canary, shadow   fractions of live requests, 0 where there is none
    problem    what does not fit, and what to do about it; empty where all is well
    """

    stable: int
    former: int | None
    candidate: int | None
    releases: tuple[int, ...]
    serving: int | None = None
    loaded: tuple[int, ...] = ()
    canary: float = 0.0
    shadow: float = 0.0
    problem: str = ""
    last: tuple[Entry, ...] = ()


def status(repository: Path, server: Server, journal: Journal) -> Status:
    """Ask the disk and the server; NotPermitted without the admin key where the server wants it."""
    stable = repositories.pinned(repository)
    current = Status(
        stable=stable,
        former=journal.former(stable),
        candidate=repositories.candidate(repository),
        releases=repositories.releases(repository),
        last=tuple(journal.entries()[-_SHOWN_ENTRIES:]),
    )
    try:
        served = traffic.served(server)
        loaded = stage.loaded(repository, server)
    except ServerAway as exc:
        return msgspec.structs.replace(current, problem=str(exc))
    split = served.split if served else Split()
    return msgspec.structs.replace(
        current,
        serving=served.release if served else None,
        loaded=loaded,
        canary=split.canary,
        shadow=split.shadow,
        problem=_problem(current, served.release if served else None, loaded, journal.unfinished()),
    )


def _problem(current: Status, serving: int | None, loaded: Container[int], unfinished: Entry | None) -> str:
    if unfinished:
        return f"`{unfinished.action}` was begun by {unfinished.who} at {unfinished.time} and has not ended"
    if serving != current.stable:
        return (
            f"the disk pins release {current.stable}, the server serves {serving}; the next command brings it in line"
        )
    if current.candidate is not None and current.candidate not in loaded:
        return f"release {current.candidate} is staged but not loaded, the server was restarted; stage it again"
    return ""
