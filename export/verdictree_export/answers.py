"""Does a guard answer with verdicts at all? One that does not would judge nothing, whatever its scores say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import msgspec
import torch

from verdictree.conversation import Conversation
from verdictree.errors import UnsupportedGuard
from verdictree.policy import Policy
from verdictree.probes import probes
from verdictree.releases.release import Release
from verdictree.runtime.local_guard import LocalGuard
from verdictree_export.finite import require_finite
from verdictree_export.prompts.checkpoint import Checkpoint

_NEVER = 0.999
_BATCH = 4
_SHOWN_TOKENS = 12


def check(
    release: Release, exported: LocalGuard, conversations: Sequence[Conversation], checkpoint: Checkpoint | None = None
) -> None:
    """Raise UnsupportedGuard where no answer under one of the release's policies is a verdict at all.

    That is where all of each policy's `conversations` and probes have `off_grammar` above 0.999, or above the release's
    own limit if that is larger; they are asked until one has less. A limit of 1 asks nothing. With `checkpoint` the
    error says what it answers instead.
    """
    enough = max(_NEVER, release.max_off_grammar)
    if enough >= 1.0:
        return
    for policy in release.policies:
        own = [conversation for conversation in conversations if conversation.judged_role in policy.roles]
        asked = (probe.conversation for probe in probes(policy))
        least = _least_off_grammar(exported, chain(own, asked), policy, enough)
        if least > enough:
            raise _refusal(release, policy, least, exported, checkpoint)


def _least_off_grammar(exported: LocalGuard, asked: Iterator[Conversation], policy: Policy, enough: float) -> float:
    least = 1.0
    while least > enough and (batch := list(islice(asked, _BATCH))):
        named = [msgspec.structs.replace(conversation, policy=policy.name, truncate="head") for conversation in batch]
        masses = [verdict.off_grammar for verdict in exported.classify(named)]
        require_finite(masses, f"the graph under policy {policy.name!r}")
        least = min(least, *masses)
    return least


def _refusal(
    release: Release, policy: Policy, least: float, exported: LocalGuard, checkpoint: Checkpoint | None
) -> UnsupportedGuard:
    instead = ""
    if checkpoint is not None:
        example = probes(policy)[0].conversation
        answer = _answer(checkpoint, exported, example)
        instead = f" to {example.messages[-1].content!r} it answers {answer!r};"
    return UnsupportedGuard(
        f"expected answers that are verdicts of family {release.family}, got {least:.4f} of the probability or more on "
        f"other answers, for every golden and probe conversation under policy {policy.name!r};{instead} choose the "
        "family and the policy that the checkpoint was made for, or export it all the same with --max-off-grammar 1"
    )


def _answer(checkpoint: Checkpoint, exported: LocalGuard, conversation: Conversation) -> str:
    ids = exported.prompt_ids(conversation)
    with torch.inference_mode():
        for _ in range(_SHOWN_TOKENS):
            ids.append(int(checkpoint.model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].argmax()))
    return str(checkpoint.tokenizer.decode(ids[-_SHOWN_TOKENS:]))
