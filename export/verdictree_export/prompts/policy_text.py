"""A policy's text stands in the prompt, so nothing in it may act there."""

from __future__ import annotations

from collections.abc import Iterator

from verdictree.errors import InvalidPolicy
from verdictree.policy import Policy
from verdictree.text.visible import quoted
from verdictree_export.prompts.checkpoint import Checkpoint


def check_policy(checkpoint: Checkpoint, policy: Policy) -> None:
    """Raise InvalidPolicy, naming the place, where a policy's text spells a control token: it could end its turn."""
    added = checkpoint.control_tokens
    added.pop(
        checkpoint.tokenizer.unk_token_id, None
    )  # what the tokenizer does not know is no token that the text spells
    for place, text in _texts(policy):
        spelled = [added[i] for i in checkpoint.encode(text) if i in added]
        spelled += [token for token in added.values() if token in text]
        if spelled:
            raise InvalidPolicy(
                f"expected plain text in {place} of policy {policy.name!r}, got {quoted(text)}, which spells the "
                f"control token {spelled[0]!r}; write it otherwise"
            )


def _texts(policy: Policy) -> Iterator[tuple[str, str]]:
    for index, category in enumerate(policy.categories):
        for name in ("code", "name", "description"):
            yield f"categories[{index}].{name}", getattr(category, name)
    yield "instructions", policy.instructions
