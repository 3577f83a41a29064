"""How a checkpoint's own chat template writes a conversation: found out by letting it write one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from verdictree import families
from verdictree.conversation import ROLES, Message, Role
from verdictree.errors import UnsupportedGuard
from verdictree.families.guard_family import CONTENT, ConversationFormat, GuardFamily, Question, TemplatePrompt
from verdictree.families.marked_text import apart
from verdictree.policy import Policy
from verdictree_export.prompts.checkpoint import Checkpoint
from verdictree_export.prompts.rendering import template_text

# Words that no prompt holds, long enough a conversation for a template that reads its last messages only.
_WORDS = ("quokkabay", "zebrafinch", "lynxmoor", "ibexdale", "ottermere")
_EDGE = "\t"  # white space that no format writes by itself


def conversation_format(checkpoint: Checkpoint, family: GuardFamily, policies: Sequence[Policy]) -> ConversationFormat:
    """The format of conversations in this checkpoint's prompts.

    That of the family, where the prompt is written by us. Else that of the checkpoint's template: which white space
    stands between turns, whether it trims messages, and how many of the last ones it reads. The family tells the words
    that mark a turn, or control tokens do, where each is a turn of the chat. `split` proves what is found here.
    Raises UnsupportedGuard where the template writes no conversation, or marks turns by other words.
    """
    if not isinstance(family.prompt, TemplatePrompt):
        return family.conversation
    form = family.conversation
    roles = [role for role in ROLES if any(role in policy.roles for policy in policies)]
    for role in roles:
        policy = next(policy for policy in policies if role in policy.roles).of_role(role)
        category = policy.categories[0] if family.grammar.per_category else None
        found = _of_role(checkpoint, family, Question(policy, role, category))
        form = msgspec.structs.replace(
            found,
            turns={**form.turns, **found.turns},
            reads={**(form.reads if role != roles[0] else {}), **found.reads},
        )
    return msgspec.structs.replace(form, control_tokens=_control_tokens(checkpoint, form.turns))


def _of_role(checkpoint: Checkpoint, family: GuardFamily, question: Question) -> ConversationFormat:
    """The format of conversations that end with a message of the question's role, of the turns that are read."""
    count = len(_WORDS) - (question.role == "assistant")
    roles: tuple[Role, ...] = (*(ROLES * count)[: count - 1], question.role)
    turns = [Message(role, f"{_EDGE}{word}{_EDGE}") for role, word in zip(roles, _WORDS, strict=False)]
    text = template_text(checkpoint, family, question, turns)
    read = [i for i in range(count) if _WORDS[i] in text]
    if not read or read != list(range(read[0], count)):
        raise _refusal(family, text, "it does not hold the last messages in their order")
    kept = f"{_EDGE}{_WORDS[count - 1]}{_EDGE}" in text
    contents = [turns[i].content if kept else _WORDS[i] for i in read]
    gaps = _around(text, contents)
    if gaps is None or _EDGE in "".join(gaps[1:-1]):
        raise _refusal(family, text, "it changes the white space around some messages only")
    written = _turns(checkpoint, family, [roles[i] for i in read], gaps)
    if written is None:
        raise _refusal(family, text, "it marks turns otherwise")
    reads: dict[str, tuple[Role, ...]] = {}
    if len(read) < count:
        reads[question.role] = tuple(roles[i] for i in read)
    return ConversationFormat(written, trims=not kept, reads=reads)


def _control_tokens(checkpoint: Checkpoint, turns: dict[str, str]) -> tuple[str, ...]:
    """Those in the turns, in the order in which they stand there."""
    text = "".join(turns.values())
    return tuple(sorted((t for t in checkpoint.control_tokens.values() if t in text), key=text.index))


def _around(text: str, contents: Sequence[str]) -> list[str] | None:
    """What stands before, between and after the contents; None where they do not stand there one after another."""
    gaps = []
    for content in contents:
        before, found, text = text.partition(content)
        if not found:
            return None
        gaps.append(before)
    return [*gaps, text]


def _turns(
    checkpoint: Checkpoint, family: GuardFamily, roles: Sequence[Role], gaps: Sequence[str]
) -> dict[str, str] | None:
    """The text of a turn by role, from what stands around the turns of these roles; None where no mark is found.

    What stands between two messages belongs to the first as far as the second's mark.
    """
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for i, role in enumerate(roles):
        start = _mark(checkpoint, family, role, gaps[i])
        if start < 0:
            return None
        before[role] = gaps[i][start:]
        if i:
            after[roles[i - 1]] = gaps[i][:start]
    last = roles[-1]
    if last not in after:
        published = family.conversation.turns.get(last, CONTENT).partition(CONTENT)[2]
        after[last] = published if gaps[-1].startswith(published) else ""
    return {role: f"{before[role]}{CONTENT}{after[role]}" for role in before}


def _mark(checkpoint: Checkpoint, family: GuardFamily, role: Role, gap: str) -> int:
    """Where the mark of a turn begins in what stands before its message; -1 where there is none.

    It is what the family says, or the words of that. Else the turn is one of the chat, marked by control tokens and a
    role's name, as in `<|im_start|>user` or `<|start_of_role|>user<|end_of_role|>`.
    """
    published = family.conversation
    mark = published.turns.get(role, CONTENT).partition(CONTENT)[0].strip()
    if not mark:
        return len(gap)
    for known in (mark, apart(mark, published.control_tokens)[-1].strip()):
        if known and known in gap:
            return gap.rfind(known)
    parts = apart(gap, _control_tokens(checkpoint, {role: gap}))
    token = len(parts) - 2
    if token < 0 or not re.fullmatch(r"\w*\s*", parts[-1]):
        return -1
    while token > 1 and re.fullmatch(r"\w+", parts[token - 1]):
        token -= 2
    return len("".join(parts[:token]))


def _refusal(family: GuardFamily, text: str, reason: str) -> UnsupportedGuard:
    first = text.find(_WORDS[0])
    shown = text[max(0, first - 40) : first + 120] if first >= 0 else text[-160:]
    return UnsupportedGuard(
        f"expected a chat template that writes a conversation as family {family.name} does, "
        f"{family.conversation.turns}, but {reason}: {shown!r}; choose the family that the checkpoint was made for "
        f"({', '.join(families.names())})"
    )
