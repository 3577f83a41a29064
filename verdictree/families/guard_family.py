"""What a guard family is: how it is asked, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from verdictree.conversation import Message, Role
from verdictree.families.grammar import VerdictGrammar
from verdictree.families.turn_marks import quote, quoted_at
from verdictree.policy import Category, Policy

_CONTENT = "{content}"


class ConversationFormat(msgspec.Struct, frozen=True):
    """How a conversation stands inside the prompt: a text for each turn, with `{content}` in it, by role.

    No two conversations are rendered alike, as long as each role has a mark of its own: what a message spells like a
    mark is quoted.
    """

    turns: dict[str, str]

    def render(self, messages: Sequence[Message]) -> str:
        """The text of the conversation; white space around a message is dropped."""
        return "".join(self._turn(message.role, self.quoted(message.content).strip()) for message in messages)

    def quoted(self, content: str) -> str:
        """A message's text, with lines that begin like a turn's mark quoted; white space around it stays."""
        inner = content.strip()
        quoted = quote(inner, self._marks)
        return content if quoted == inner else content.replace(inner, quoted)

    def quotes(self, content: str) -> list[int]:
        """Where a message's text, without the white space around it, is quoted."""
        return quoted_at(content.strip(), self._marks)

    def marks(self, role: Role) -> tuple[str, str]:
        """What stands before and after a message of this role."""
        before, _, after = self.turns[role].partition(_CONTENT)
        return before, after

    @property
    def _marks(self) -> list[str]:
        return [turn.partition(_CONTENT)[0] for turn in self.turns.values()]

    def _turn(self, role: Role, content: str) -> str:
        return self.turns[role].replace(_CONTENT, content)


@dataclass(frozen=True)
class Question:
    """What a prompt asks about a message of a role: a whole policy, or one category where the family does so."""

    policy: Policy
    role: Role
    category: Category | None = None


@dataclass(frozen=True)
class TemplatePrompt:
    """The checkpoint's chat template holds the whole moderation prompt; `arguments` are what it takes of a question."""

    arguments: Callable[[Question], Mapping[str, Any]] = lambda _question: {}


@dataclass(frozen=True)
class ChatPrompt:
    """Text of ours in the checkpoint's chat template: a system message (or none), and text around the conversation."""

    system: Callable[[Question], str]
    before: Callable[[Question], str]
    after: Callable[[Question], str]


@dataclass(frozen=True)
class PlainPrompt:
    """The whole prompt as text, control tokens included, for a checkpoint that has no chat template of its own."""

    before: Callable[[Question], str]
    after: Callable[[Question], str]


@dataclass(frozen=True)
class GuardFamily:
    """A kind of guard.

    `template_marks` are words by which its checkpoint's chat template is known, for `inspect --family auto`: all of
    them stand in it.
    """

    name: str
    grammar: VerdictGrammar
    conversation: ConversationFormat
    prompt: TemplatePrompt | ChatPrompt | PlainPrompt
    template_marks: tuple[str, ...] = ()


def category_lines(policy: Policy) -> str:
    """One line a category: `code: name.`, then its description."""
    lines = (f"{c.code}: {c.name}." + (f" {c.description}" if c.description else "") for c in policy.categories)
    return "\n".join(lines)
