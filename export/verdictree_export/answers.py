"""Does a guard answer with verdicts at all? One that does not would judge nothing, whatever its scores say."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import msgspec
import torch

from verdictree.conversation import Conversation
from verdictree.errors import UnsupportedGuard
from verdictree.policy import Policy
from verdictree.probes import probes
from verdictree.release import Release
from verdictree_export.checkpoint import Checkpoint
from verdictree_export.finite import require_finite
from verdictree_export.graph_judge import GraphJudge

MAX_OFF_GRAMMAR = 0.5
_NEVER = 0.999
_BATCH = 4
_NUM_PROBES = 8
_SHOWN_TOKENS = 12


def limit(
    release: Release,
    judge: GraphJudge,
    conversations: Sequence[Conversation],
    wanted: float | None = None,
    guard: Checkpoint | None = None,
) -> float:
    """The release's `max_off_grammar`: `wanted`, or 0.5 for a guard that mostly answers with verdicts, 1 for another.

    Raises UnsupportedGuard where no answer under one of the release's policies is a verdict: all `conversations` and
    the policy's probes have `off_grammar` above `wanted` (None: above 0.999). 1 asks nothing. With `guard` the error
    says what it answers instead.
    """
    if wanted is not None and wanted >= 1.0:
        return 1.0
    limits = []
    for policy in release.policies:
        own = [one for one in conversations if one.judged_role in policy.roles]
        found = _off_grammar(judge, chain(own, probes(policy)), policy, len(own) + _NUM_PROBES, wanted or _NEVER)
        if min(found) > (wanted or _NEVER):
            raise _refusal(release, policy, min(found), judge, guard)
        limits.append(MAX_OFF_GRAMMAR if statistics.median(found) <= MAX_OFF_GRAMMAR else 1.0)
    return max(limits) if wanted is None else wanted


def _off_grammar(
    judge: GraphJudge, asked: Iterator[Conversation], policy: Policy, least: int, enough: float
) -> list[float]:
    """What lies off the grammar of the answers to `least` conversations, and to more until one has little enough."""
    found: list[float] = []
    while (len(found) < least or min(found) > enough) and (batch := list(islice(asked, _BATCH))):
        named = [msgspec.structs.replace(one, policy=policy.name, truncate="head") for one in batch]
        found += [verdict.off_grammar for verdict in judge(named)]
        require_finite(found, f"the graph under policy {policy.name!r}")
    return found


def _refusal(
    release: Release, policy: Policy, least: float, judge: GraphJudge, guard: Checkpoint | None
) -> UnsupportedGuard:
    example = probes(policy)[0]
    instead = (
        "" if guard is None else f" to {example.messages[-1].content!r} it answers {_answer(guard, judge, example)!r};"
    )
    return UnsupportedGuard(
        f"expected answers that are verdicts of family {release.family}, got {least:.4f} of the probability or more on "
        f"other answers, for every golden and probe conversation under policy {policy.name!r};{instead} choose the "
        "family and the policy that the checkpoint was made for, or export it all the same with --max-off-grammar 1"
    )


def _answer(guard: Checkpoint, judge: GraphJudge, conversation: Conversation) -> str:
    ids = judge.prompt_ids(conversation)
    with torch.inference_mode():
        for _ in range(_SHOWN_TOKENS):
            ids.append(int(guard.model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].argmax()))
    return str(guard.tokenizer.decode(ids[-_SHOWN_TOKENS:]))
