"""Collects what the live release and the candidate say of the same conversations, and has it compared."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verdictree import pair as pairs
from verdictree.conversation import Conversation
from verdictree.pair import Pair
from verdictree.releases import repository as repositories
from verdictree.releases.journal import Journal
from verdictree.releases.repository import CANDIDATE, ENSEMBLE, LIVE
from verdictree.verdict import Verdict
from verdictree_client.errors import GuardError, InvalidRequest
from verdictree_client.rollout import traffic
from verdictree_client.rollout.errors import GatesFailed, Refused
from verdictree_client.rollout.releases import fingerprint
from verdictree_client.rollout.server import Server

if TYPE_CHECKING:
    from verdictree_comparison import Compared, Gates

_CONCURRENCY = 4


def contents(repository: Path, candidate: int) -> list[str]:
    """What a comparison is about: the fingerprints of the live release and of the candidate."""
    return [fingerprint(repository, number) for number in (repositories.pinned(repository), candidate)]


def compare(
    repository: Path, server: Server, candidate: int, conversations: Iterable[Conversation] | None, limits: Gates | None
) -> Compared:
    """Compare on the shadow's record, or on `conversations`, which both releases are asked about."""
    from verdictree_comparison import Gates, compare_pairs  # only a comparison needs its libraries

    live = repositories.pinned(repository)
    if conversations is not None:
        found, source = _asked(server, conversations)
    else:
        path = traffic.record(repository, candidate)
        found, source = list(pairs.read(path)), "live traffic, by shadow"
    if not found:
        raise Refused("expected pairs of verdicts to compare, got none; run `shadow` a while, or give conversations")
    return compare_pairs(found, live=live, candidate=candidate, source=source, gates=limits or Gates())


def gates(repository: Path, journal: Journal, candidate: int, force: bool) -> dict[str, Any]:
    """The outcome of the last comparison of these two contents; GatesFailed where it failed, or there is none."""
    wanted = contents(repository, candidate)
    found = [entry for entry in journal.entries() if entry.action == "compare" and entry.details["contents"] == wanted]
    failed = found[-1].details["failed"] if found else ["no comparison with the live release; run `compare` first"]
    if failed and not force:
        raise GatesFailed(f"release {candidate} may not be promoted: {'; '.join(failed)}")
    return {"comparison": found[-1].number if found else None, "failed": failed}


def _asked(server: Server, conversations: Iterable[Conversation]) -> tuple[Sequence[Pair], str]:
    served = traffic.served(server)
    live = LIVE if served and served.candidate is not None else ENSEMBLE
    # Each release goes first as often as the other, so that neither always finds warm caches or an idle machine.
    orders = itertools.cycle([(live, CANDIDATE), (CANDIDATE, live)])
    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        found = pool.map(lambda work: _pair(server, *work), zip(conversations, orders, itertools.repeat(live)))
        answers = list(found)
    judged = [answer for answer in answers if answer is not None]
    refused = len(answers) - len(judged)
    return judged, f"given, {refused} refused as invalid" if refused else "given"


def _pair(server: Server, conversation: Conversation, order: tuple[str, str], live: str) -> Pair | None:
    answers = {ensemble: _timed(server, ensemble, conversation) for ensemble in order}
    (verdict, live_ms), (other, candidate_ms) = answers[live], answers[CANDIDATE]
    if isinstance(verdict, InvalidRequest):
        return None  # nothing to compare with: the live release refuses the conversation too
    if isinstance(verdict, GuardError):
        raise verdict
    failed = isinstance(other, GuardError)
    return Pair(
        live=verdict,
        live_ms=live_ms,
        candidate=None if isinstance(other, GuardError) else other,
        candidate_ms=candidate_ms,
        error=str(other) if failed else "",
        conversation=conversation,
    )


def _timed(server: Server, ensemble: str, conversation: Conversation) -> tuple[Verdict | GuardError, float]:
    start = time.perf_counter()
    try:
        answer: Verdict | GuardError = server.ask(ensemble, conversation)
    except GuardError as exc:
        answer = exc
    return answer, 1000 * (time.perf_counter() - start)
