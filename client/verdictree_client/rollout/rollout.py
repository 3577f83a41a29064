"""Rollouts, one method an action: stage, shadow, compare, canary, promote, rollback, retire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from verdictree import wire
from verdictree.conversation import Conversation
from verdictree.files import spare_files
from verdictree.releases import repository as repositories
from verdictree.releases.admin_key import published
from verdictree.releases.journal import Journal
from verdictree.releases.release import Release
from verdictree_client.connection import TLS
from verdictree_client.rollout import comparing, stage, traffic
from verdictree_client.rollout import releases as release_files
from verdictree_client.rollout.actions import Actions
from verdictree_client.rollout.configs import Split
from verdictree_client.rollout.errors import Refused
from verdictree_client.rollout.server import Server
from verdictree_client.rollout.status import Status, status

if TYPE_CHECKING:
    from verdictree_comparison import Compared, Gates


class Rollout:
    """Rolls releases out on one model repository and the server that runs on it.

    Every action holds the repository's lock, brings the server in line with the disk where an earlier action was cut
    off, and is written to the journal before it begins and when it ends. What is pinned on disk is what is served:
    `promote` and `rollback` change the pin first, in one step, then the server.

    `who` names the operator in the journal (None: user@host). `admin_key` opens a server that was
    started with one (None: the key that the server made and left in the repository's state folder).
    Every method raises a RolloutError, or InvalidRelease for a release that is damaged.
    """

    def __init__(
        self,
        repository: Path | str = "model_repository",
        url: str = wire.URL,
        *,
        admin_key: str | None = None,
        tls: TLS | None = None,
        who: str | None = None,
    ) -> None:
        self._repository = Path(repository).resolve()
        self._server = Server(url, lambda: admin_key or published(self._repository), tls)
        self._journal = Journal(self._repository, who)
        self._actions = Actions(self._repository, self._server, self._journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def status(self) -> Status:
        """Where the rollout stands; changes nothing and waits for nobody."""
        return status(self._repository, self._server, self._journal)

    def stage(self, number: int, *, reason: str = "") -> None:
        """Verify release `number`, load it beside the live one as `guard_candidate`, warm it up and try it."""
        with self._actions.begun("stage", number, reason):
            self._refuse_while_split("stage")
            if number == repositories.pinned(self._repository):
                raise Refused(f"expected a release other than the live one, got {number}")
            stage.stage(self._repository, self._server, number)

    def shadow(self, fraction: float, *, record_texts: bool = True, reason: str = "") -> None:
        """Ask the candidate too about a fraction of the live requests, and record both verdicts; 0 stops."""
        self._split("shadow", fraction, reason, record_texts)

    def canary(self, fraction: float, *, reason: str = "") -> None:
        """Let the candidate answer a fraction of the live requests, chosen by their routing keys; 0 stops."""
        self._split("canary", fraction, reason, None)

    def compare(self, conversations: Iterable[Conversation] | None = None, gates: Gates | None = None) -> Compared:
        """Compare the candidate with the live release on what the shadow recorded, or on `conversations`.

        The result, with the gates' outcome, is what `promote` looks at.
        """
        candidate = self._staged()
        contents = comparing.contents(self._repository, candidate)
        compared = comparing.compare(self._repository, self._server, candidate, conversations, gates)
        with self._journal.lock("compare", patience=10.0):
            if contents != comparing.contents(self._repository, self._staged()):
                raise Refused("expected the same two releases during the whole comparison, got others; compare again")
            details = {"contents": contents, **compared.summary()}
            stable = repositories.pinned(self._repository)
            self._journal.write("compare", "done", stable=stable, release=candidate, details=details)
        return compared

    def promote(self, *, force: bool = False, reason: str = "") -> int:
        """Make the candidate the live release, if it passed its gates or `force` has a reason; return its number."""
        if force and not reason.strip():
            raise Refused("expected a reason with force, got none; say why the gates do not count")
        candidate = repositories.candidate(self._repository)
        with self._actions.begun("promote", candidate, reason) as details:
            candidate = self._staged()
            details |= {"force": force, "gates": comparing.gates(self._repository, self._journal, candidate, force)}
            if not stage.is_loaded(self._repository, self._server, candidate):
                raise Refused(f"expected release {candidate} loaded, but the server was restarted; stage it again")
            self._actions.pin(candidate)
        return candidate

    def rollback(self, *, reason: str = "") -> int:
        """The emergency stop: end a canary or shadow, let the former release be the live one, and return its number.

        Where nothing was promoted, the end of the canary or shadow is all. A journal on a full disk does not hinder it;
        `notes` say what is missing in it.
        """
        former = self._journal.former(repositories.pinned(self._repository))
        with (
            spare_files.taken(),
            self._actions.begun("rollback", former, reason, unrecorded=True) as details,
        ):
            stable = repositories.pinned(self._repository)
            served = traffic.served(self._server)
            if served is not None and served.candidate is not None:
                traffic.serve_pinned(self._repository, self._server)
                details["ended"] = served.candidate
            former = self._journal.former(stable)
            if former is None and "ended" in details:
                return stable
            if former is None:
                raise Refused("expected a former release to return to, got none: nothing was promoted")
            if not stage.is_loaded(self._repository, self._server, former):
                stage.stage(self._repository, self._server, former)
            self._actions.pin(former)
        return former

    @property
    def notes(self) -> tuple[str, ...]:
        """What the actions so far could not do beside what they were for."""
        return tuple(self._actions.notes)

    def retire(self, number: int, *, delete: bool = False, reason: str = "") -> None:
        """Unload release `number`; with `delete` remove its files, if neither a pin nor `rollback` needs them."""
        with self._actions.begun("retire", number, reason) as details:
            details["delete"] = delete
            stable = repositories.pinned(self._repository)
            if number not in repositories.releases(self._repository):
                raise Refused(f"expected a release of '{self._repository}', got {number}")
            if number == stable:
                raise Refused(f"expected a release that is not live, got {number}; promote another first")
            users = repositories.needed_by(self._repository, number)
            if delete and users:
                named = ", ".join(map(str, users))
                raise Refused(f"expected a release that nothing needs, but release {named} shares its graph")
            if delete and number == self._journal.former(stable):
                raise Refused(f"expected a release that nothing needs, but `rollback` returns to {number}")
            if number == repositories.candidate(self._repository):
                self._refuse_while_split("retire the candidate")
                stage.drop_candidate(self._repository, self._server)
            stage.unload(self._repository, self._server, number)
            if delete:
                release_files.delete(self._repository, number)

    def derive(
        self,
        source: int | None = None,
        *,
        calibration: Path | None = None,
        thresholds: Mapping[str | None, float] | None = None,
        reason: str = "",
    ) -> Release:
        """Write a release from `source` (None: the live one) that shares its graph; see `releases.derive`."""
        source = source or repositories.pinned(self._repository)
        return release_files.derive(
            self._repository, source, calibration, thresholds or {}, journal=self._journal, reason=reason
        )

    def _split(self, action: str, fraction: float, reason: str, record_texts: bool | None) -> None:
        if not 0 <= fraction <= 1:
            raise Refused(f"expected a fraction from 0 to 1, got {fraction}")
        with self._actions.begun(action, repositories.candidate(self._repository), reason) as details:
            details["fraction"] = fraction
            candidate = self._staged()
            if not stage.is_loaded(self._repository, self._server, candidate):
                raise Refused(f"expected release {candidate} loaded, but the server was restarted; stage it again")
            served = traffic.served(self._server)
            split = served.split if served else Split()
            if action == "canary":
                wanted = Split(fraction, split.shadow, split.record_texts)
            else:
                wanted = Split(split.canary, fraction, bool(record_texts))
            traffic.split(self._repository, self._server, wanted)

    def _staged(self) -> int:
        candidate = repositories.candidate(self._repository)
        if candidate is None:
            raise Refused("expected a staged release, got none; run `stage` first")
        return candidate

    def _refuse_while_split(self, what: str) -> None:
        served = traffic.served(self._server)
        if served and served.candidate is not None:
            raise Refused(
                f"expected no canary and no shadow, but release {served.candidate} has one; "
                f"stop it with fraction 0 before you {what}"
            )
