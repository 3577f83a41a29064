"""Where the characters of a rendered conversation stand in its messages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from verdictree.conversation import Message, Role
from verdictree.families.guard_family import ConversationFormat
from verdictree.families.turn_marks import QUOTE
from verdictree.verdict import Place


@dataclass(frozen=True)
class _Turn:
    """start       of the turn in the rendered conversation
    begin, end  of the message's text in it
    dropped     characters of white space before it, which are not rendered
    quotes      where the text has a sign of quotation that the message lacks, counted in the message without `dropped`
    """

    start: int
    begin: int
    end: int
    dropped: int
    quotes: tuple[int, ...]

    def character(self, offset: int) -> int:
        text = min(max(offset, self.begin), self.end) - self.begin
        ends = [at + (i + 1) * len(QUOTE) for i, at in enumerate(self.quotes)]
        before = bisect_right(ends, text)
        character = text - before * len(QUOTE)
        if before < len(self.quotes):  # a place inside a sign of quotation is that before what it quotes
            character = min(character, self.quotes[before])
        return self.dropped + character


class Transcript:
    """A conversation as a format renders it, read backwards: from a place in the text to a place in a message."""

    def __init__(self, form: ConversationFormat, messages: Sequence[Message]) -> None:
        self._form, self._read = form, form.read(messages)
        self._first = len(messages) - len(self._read)

    def place(self, offset: int) -> Place:
        """The message that holds the character at `offset` of the text, and the character of its content.

        A place in a turn's mark is that before or after the message's text.
        """
        number = self._number(offset)
        return Place(self._first + number, self._turns[number].character(offset))

    def role(self, offset: int) -> Role:
        """The role of that message."""
        return self._read[self._number(offset)].role

    def _number(self, offset: int) -> int:
        return max(0, bisect_right([turn.start for turn in self._turns], offset) - 1)

    @cached_property
    def _turns(self) -> list[_Turn]:
        turns, end = [], 0
        for message in self._read:
            before, after = self._form.marks(message.role)
            written, quotes = self._form.written(message.content), tuple(self._form.quotes(message.content))
            start, begin = end, end + len(before)
            stop = begin + len(written) + len(quotes) * len(QUOTE)
            turns.append(_Turn(start, begin, stop, message.content.index(written), quotes))
            end = stop + len(after)
        return turns
