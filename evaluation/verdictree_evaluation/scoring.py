"""One scoring pass: each row is asked once, in this process or of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from verdictree.conversation import Conversation, Truncate
from verdictree.errors import InvalidConversation, NoVerdict
from verdictree.releases.release import MANIFEST, MARGINALS_MODEL, sha256
from verdictree.verdict import Verdict
from verdictree.verdict_tree.exploration import exit_log_odds, unpack
from verdictree_evaluation.data.formats import Row
from verdictree_evaluation.data.predictions import Prediction, PredictionStore
from verdictree_evaluation.defaults import CONCURRENCY
from verdictree_evaluation.metrics.baselines import LabelLogits

if TYPE_CHECKING:
    from verdictree.runtime.tokenization import TokenizedConversation
    from verdictree_client import TLS

_BATCH = 8


class Guard(Protocol):
    """What scores rows. `release` names it; `codes` and `names` are its categories, in the order of its verdicts."""

    release: str
    codes: tuple[str, ...]
    names: tuple[str, ...]

    def score(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """One prediction a row, in the rows' order."""
        ...


class InProcess:
    """A release of a model repository, run in this process: raw verdicts and the label logits."""

    def __init__(
        self,
        repository: Path,
        number: int,
        *,
        policy: str | None = None,
        threads: int = 0,
        truncate: Truncate | None = None,
        exact: bool = False,
    ) -> None:
        """Load release `number`, InvalidRelease where it is damaged; ask by `policy`, the default for None.

        `exact` lets no conversation leave the graph early.
        """
        from verdictree.runtime.local_guard import LocalGuard  # a server is asked without these libraries

        self.guard = LocalGuard.load(repository, number, threads)
        self.directory = repository / MARGINALS_MODEL / str(number)
        self.policy = self.guard.release.policy_named(policy)
        self.calibration = self.guard.calibrations.get(self.policy.name)
        self.release = f"sha256:{sha256(self.directory / MANIFEST)} policy {self.policy.name}{_in_windows(truncate)}"
        self.release += " exact" if exact and self.guard.release.early_exit else ""
        self.codes = self.policy.codes
        self.names = tuple(category.name for category in self.policy.categories)
        self._truncate = truncate
        self._exact = exact
        tree = self.guard.release.tree
        labels = [tree.grammar.label(category) for category in self.policy.categories]
        # Other guards than those with one list of labels have no forced prefix.
        self._label_logits = LabelLogits(tree, labels) if len(tree.lists) == 1 else None

    def score(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """One prediction a row; a conversation without a verdict has an error in its place."""
        pending = iter(rows)
        while batch := list(islice(pending, _BATCH)):
            encoded: dict[int, TokenizedConversation] = {}
            errors: dict[int, str] = {}
            for index, row in enumerate(batch):
                try:
                    encoded[index] = self.guard.tokenize(
                        Conversation(
                            row.conversation, policy=self.policy.name, truncate=self._truncate, exact=self._exact
                        )
                    )
                except InvalidConversation as exc:
                    errors[index] = str(exc)
            scored = dict(zip(encoded, self._scored([*encoded.values()]), strict=True))
            errors |= {index: str(one) for index, (one, _) in scored.items() if isinstance(one, NoVerdict)}
            for index, row in enumerate(batch):
                outcome, logits = scored.get(index, (None, None))
                yield Prediction(
                    id=row.id,
                    digest=row.digest,
                    release=self.release,
                    verdict=outcome if isinstance(outcome, Verdict) else None,
                    label_logits=logits,
                    error=errors.get(index),
                )

    def _scored(
        self, batch: Sequence[TokenizedConversation]
    ) -> list[tuple[Verdict | NoVerdict, tuple[float, ...] | None]]:
        if not batch:
            return []
        scored = []
        for one, outputs in zip(batch, self.guard.infer_each(batch), strict=True):
            outcome = self.guard.score.outcome(outputs, one.prefix_ids, one.token_counts)
            shown = outcome if isinstance(outcome, NoVerdict) else uncalibrated(outcome)
            scored.append((shown, None if one.windows else self._logits(outputs)))
        return scored

    def _logits(self, outputs: Sequence[Any]) -> tuple[float, ...] | None:
        release = self.guard.release
        label_logits, log_normalizer, top_logit, expansions = outputs
        if self._label_logits is None or exit_log_odds(log_normalizer, expansions) is not None:
            return None
        (explored,) = unpack(release.tree, release.exploration, label_logits, log_normalizer, top_logit, expansions)
        logits = self._label_logits(explored)
        return None if logits is None else tuple(logits.tolist())


class Served:
    """A running server. It shows no logits, and calibrates by itself."""

    def __init__(
        self,
        url: str,
        *,
        policy: str | None = None,
        concurrency: int = CONCURRENCY,
        deadline: float = 300.0,
        truncate: Truncate | None = None,
        tls: TLS | None = None,
    ) -> None:
        """Ask the server for one verdict, which names its release and categories; GuardError where it cannot answer."""
        from verdictree_client import GuardClient

        encryption: dict[str, Any] = {} if tls is None else {"tls": tls}
        self._client = GuardClient(url, deadline=deadline, **encryption)
        self._policy, self._concurrency, self._truncate = policy, concurrency, truncate
        verdict = self._client.classify("Hello.", policy=policy)
        calibration = f" calibration {verdict.calibration}" if verdict.calibration else ""
        self.release = f"{url} release {verdict.release} policy {verdict.policy}{calibration}{_in_windows(truncate)}"
        self.codes = tuple(score.code for score in verdict.categories)
        self.names = tuple(score.name for score in verdict.categories)

    def score(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """One prediction a row; raises GuardError when the server fails, an error for a row that it refuses."""
        from verdictree_client import GuardError, InvalidRequest

        asked = list(rows)
        conversations = (Conversation(row.conversation, policy=self._policy, truncate=self._truncate) for row in asked)
        answers = self._client.classify_many(conversations, concurrency=self._concurrency, return_errors=True)
        for row, answer in zip(asked, answers, strict=True):
            blank = Prediction(id=row.id, digest=row.digest, release=self.release)
            if isinstance(answer, InvalidRequest):
                yield msgspec.structs.replace(blank, error=str(answer))
            elif isinstance(answer, GuardError):
                raise answer
            else:
                yield msgspec.structs.replace(blank, verdict=answer)


def _in_windows(truncate: Truncate | None) -> str:
    return " in windows" if truncate == "windows" else ""  # other verdicts: a run must not go on with those


def uncalibrated(verdict: Verdict) -> Verdict:
    """The verdict's raw part: what stays true when the release's calibration changes."""
    raw = tuple(
        msgspec.structs.replace(score, calibrated=None, flagged=None, action=None) for score in verdict.categories
    )
    return msgspec.structs.replace(
        verdict,
        categories=raw,
        p_unsafe_calibrated=None,
        flagged=None,
        unsafe_flagged=None,
        calibration=None,
        action=None,
    )


def score_all(
    guard: Guard, rows: Sequence[Row], store: PredictionStore, begin: Callable[[int, int], Callable[[], None]]
) -> list[Prediction]:
    """Score what the store lacks and return every row's prediction, in the rows' order.

    `begin(total, done)` starts a progress bar and returns the call that advances it by one row.
    """
    pending = store.pending(rows, guard.release)
    advance = begin(len(rows), len(rows) - len(pending))
    for prediction in guard.score(pending):
        store.append(prediction)
        advance()
    found = (store.find(row, guard.release) for row in rows)
    return [prediction for prediction in found if prediction is not None]
