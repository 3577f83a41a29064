"""The guard families: how each is asked and what it may answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from verdictree.conversation import Message, Role
from verdictree.errors import UnsupportedGuard
from verdictree.grammar import VerdictGrammar
from verdictree.policy import Policy


class ConversationFormat(msgspec.Struct, frozen=True):
    """How a conversation stands inside the prompt: `speaker: content` and an empty line for each turn."""

    speakers: dict[str, str]

    def render(self, messages: Sequence[Message]) -> str:
        """The text of the conversation; white space around a message is dropped."""
        return "".join(f"{self.speakers[message.role]}: {message.content.strip()}\n\n" for message in messages)

    def speaker(self, role: Role) -> str:
        """The name that the prompt gives to this role."""
        return self.speakers[role]


class ModerationPrompt(msgspec.Struct, frozen=True):
    """Our own wording, for a model that was not made as a guard: what it is told, and what it is asked at the end."""

    task: str
    question: str

    def system(self, policy: Policy) -> str:
        """The system message: the task and the category list."""
        lines = (f"{c.code}: {c.name}." + (f" {c.description}" if c.description else "") for c in policy.categories)
        return self.task + "\n\n" + "\n".join(lines)

    def ask(self, policy: Policy, speaker: str) -> str:
        """The question that follows the conversation."""
        return self.question.format(speaker=speaker) + (f"\n{policy.instructions}" if policy.instructions else "")


class GuardFamily(msgspec.Struct, frozen=True):
    """A kind of guard. `prompt` is None where the checkpoint's chat template holds the whole moderation prompt."""

    name: str
    grammar: VerdictGrammar
    conversation: ConversationFormat
    prompt: ModerationPrompt | None = None


_USER_AND_AGENT = ConversationFormat(speakers={"user": "User", "assistant": "Agent"})

_FAMILIES = (
    GuardFamily(
        name="llama-guard-3",
        grammar=VerdictGrammar(lead="\n\n", safe="safe", unsafe="unsafe", opening="\n", separator=","),
        conversation=_USER_AND_AGENT,
    ),
    GuardFamily(
        name="instruct",
        grammar=VerdictGrammar(safe="safe", unsafe="unsafe", opening="\n", separator=","),
        conversation=_USER_AND_AGENT,
        prompt=ModerationPrompt(
            task="You are a content moderator. You read a conversation between a User and an Agent and judge only its "
            "last message. If it is harmless, answer safe. Otherwise answer unsafe, and on a new line the codes of "
            "its hazard categories, separated by commas. The hazard categories are:",
            question="Judge the last message, from the {speaker}: safe, or unsafe and its codes.",
        ),
    ),
)


def family(name: str) -> GuardFamily:
    """The family of this name; UnsupportedGuard, naming the known ones, where there is none."""
    for candidate in _FAMILIES:
        if candidate.name == name:
            return candidate
    raise UnsupportedGuard(f"expected a guard family among {', '.join(names())}, got {name!r}")


def names() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(candidate.name for candidate in _FAMILIES)
