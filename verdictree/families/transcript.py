"""Where the characters of a rendered conversation stand in its messages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from verdictree.conversation import Message
from verdictree.families.guard_family import ConversationFormat
from verdictree.families.turn_marks import QUOTE
from verdictree.verdict import Place


@dataclass(frozen=True)
class _Turn:
    """begin, end  of the message's text in the rendered conversation
    dropped     characters of white space before it, which are not rendered
    quotes      where the text has a sign of quotation that the message lacks, counted in the message without `dropped`
    """

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
        self._turns: list[_Turn] = []
        self._starts: list[int] = []
        read, end = form.read(messages), 0
        self._first = len(messages) - len(read)
        for message in read:
            before, after = form.marks(message.role)
            written, quotes = form.written(message.content), tuple(form.quotes(message.content))
            begin = end + len(before)
            stop = begin + len(written) + len(quotes) * len(QUOTE)
            dropped = message.content.index(written)
            self._turns.append(_Turn(begin, stop, dropped, quotes))
            self._starts.append(end)
            end = stop + len(after)

    def place(self, offset: int) -> Place:
        """The message that holds the character at `offset` of the text, and the character of its content.

        A place in a turn's mark is that before or after the message's text.
        """
        number = max(0, bisect_right(self._starts, offset) - 1)
        return Place(self._first + number, self._turns[number].character(offset))
