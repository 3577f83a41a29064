"""What a guard family is: how it is asked, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from verdictree.conversation import Message, Role
from verdictree.errors import InvalidConversation
from verdictree.families.grammar import VerdictGrammar
from verdictree.families.marked_text import MarkedText, apart, joined
from verdictree.families.turn_marks import quote, quoted_at
from verdictree.policy import Category, Policy

CONTENT = "{content}"


class ConversationFormat(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a conversation stands inside the prompt.

    turns           a text for each turn, with `{content}` in it, by role
    trims           whether white space around a message is dropped
    reads           by the role of the last message, the roles of the last messages that a guard reads, where it does
                    not read all: of a conversation of many turns the others are left out
    control_tokens  the control tokens in `turns`, where a turn is one of the chat template's; no message spells one

    No two conversations that are read whole are rendered alike, as long as each role has a mark of its own: what a
    message spells like a mark of plain words is quoted, and control tokens cannot be spelled.
    """

    turns: dict[str, str]
    trims: bool = True
    reads: dict[str, tuple[Role, ...]] = {}
    control_tokens: tuple[str, ...] = ()

    def render(self, messages: Sequence[Message]) -> str:
        """The text of the conversation; InvalidConversation as `read` raises it."""
        return "".join(self.marked(messages))

    def marked(self, messages: Sequence[Message]) -> MarkedText:
        """The text of the conversation with its control tokens apart; InvalidConversation as `read` raises it."""
        parts: list[MarkedText] = []
        for message in self.read(messages):
            before, after = self.marks(message.role)
            content = quote(self.written(message.content), self._words)
            parts += [apart(before, self.control_tokens), (content,), apart(after, self.control_tokens)]
        return joined(*parts)

    def read(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages that the guard reads.

        Raises InvalidConversation where it reads an answer together with the question before it, and there is none:
        its makers' format has no place for that.
        """
        roles = self.reads.get(messages[-1].role)
        if roles is None:
            return messages
        last = messages[-len(roles) :]
        if tuple(message.role for message in last) != roles:
            raise InvalidConversation(
                f"expected a conversation that ends with messages of roles {', '.join(roles)}, which this guard reads "
                f"together, got {', '.join(message.role for message in last)}; send the message before it too"
            )
        return last

    def quoted(self, content: str) -> str:
        """A message's text, with lines that begin like a turn's mark quoted; white space around it stays."""
        written = self.written(content)
        return content.replace(written, quote(written, self._words))

    def quotes(self, content: str) -> list[int]:
        """Where the text of a message, as `written`, is quoted."""
        return quoted_at(self.written(content), self._words)

    def written(self, content: str) -> str:
        """A message's text as it stands in the prompt, but for what is quoted."""
        return content.strip() if self.trims else content

    def marks(self, role: Role) -> tuple[str, str]:
        """What stands before and after a message of this role."""
        before, _, after = self.turns[role].partition(CONTENT)
        return before, after

    def opening(self, role: Role) -> MarkedText:
        """How a turn of this role begins, up to its last control token; no text where it has none."""
        parts = apart(self.marks(role)[0], self.control_tokens)
        return (*parts[:-1], "")

    def closing(self, role: Role) -> str:
        """How a turn of this role ends, from its first control token on; no text where it has none."""
        after = self.marks(role)[1]
        return after[len(apart(after, self.control_tokens)[0]) :]

    @property
    def _words(self) -> list[str]:
        # A role's name after a control token (`<|im_start|>user`) marks nothing without the token: it has no colon.
        last = [apart(turn.partition(CONTENT)[0], self.control_tokens)[-1] for turn in self.turns.values()]
        return [words for words in last if ":" in words]


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

    `conversation` is the format that its makers publish; that of a checkpoint's own template counts where the two
    differ. `labels` are what it was trained to name: those among them that a prompt lists are followed, whatever part
    of them a policy keeps. `template_marks` are words by which its checkpoint's chat template is known, for
    `inspect --family auto`: all of them stand in it.
    """

    name: str
    grammar: VerdictGrammar
    conversation: ConversationFormat
    prompt: TemplatePrompt | ChatPrompt | PlainPrompt
    labels: tuple[str, ...] = ()
    template_marks: tuple[str, ...] = ()


def category_lines(policy: Policy) -> str:
    """One line a category: `code: name.`, then its description."""
    lines = (f"{c.code}: {c.name}." + (f" {c.description}" if c.description else "") for c in policy.categories)
    return "\n".join(lines)
