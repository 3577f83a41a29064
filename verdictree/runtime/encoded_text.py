"""The token ids of one conversation, with those of the prompt's words that are encoded with it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from verdictree.families.marked_text import MarkedText
from verdictree.families.transcript import Transcript
from verdictree.releases.prompt import Prompt
from verdictree.verdict import Place


def token_ids(tokenizer: Tokenizer, text: MarkedText) -> list[int]:
    """The ids of a text: a control token is the token that it is, and between two of them is text, whatever it spells.

    Tokenizers encode texts between control tokens by themselves, so this is the encoding of the whole.
    """
    return list(itertools.chain.from_iterable(piece.ids for piece in _pieces(tokenizer, text)))


class _Piece(NamedTuple):
    """A text between control tokens, or one of those: its ids, and its place among the characters of the whole."""

    ids: Sequence[int]
    begin: int
    end: int
    encoding: Encoding | None

    @property
    def spans(self) -> list[tuple[int, int]]:
        if self.encoding is None:
            return [(self.begin, self.end)]
        return [(self.begin + start, self.begin + stop) for start, stop in self.encoding.offsets]


def _pieces(tokenizer: Tokenizer, text: MarkedText) -> list[_Piece]:
    pieces, begin = [], 0
    for place, part in enumerate(text):
        end = begin + len(part)
        if place % 2:
            pieces.append(_Piece([tokenizer.token_to_id(part)], begin, end, None))
        elif part:
            encoding = tokenizer.encode(part, add_special_tokens=False)
            pieces.append(_Piece(encoding.ids, begin, end, encoding))
        begin = end
    return pieces


@dataclass(frozen=True)
class EncodedText:
    """What stands between prefix and suffix.

    ids    (tokens,)
    own    which of them are the conversation's own, not the prompt's, nor how its first turn begins and its last ends
           where control tokens say that: what every part of it stands between
    begin  the character at which the conversation begins in the text that was encoded; before it where the conversation
           was cut
    """

    pieces: tuple[_Piece, ...]
    ids: npt.NDArray[np.int64]
    own: range
    begin: int

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        prompt: Prompt,
        conversation: MarkedText,
        opening: int = 0,
        closing: int = 0,
        left_out: int = 0,
    ) -> Self:
        """Encode a conversation between a prompt's uncached texts.

        `opening` and `closing` are the lengths, in characters, of how its first turn begins and its last ends;
        `left_out` says how many of the conversation's characters do not stand here.
        """
        pieces = tuple(_pieces(tokenizer, prompt.marked(conversation)))
        ids = np.array(list(itertools.chain.from_iterable(piece.ids for piece in pieces)), dtype=np.int64)
        before = len(prompt.uncached_before)
        whole = cls(pieces, ids, range(len(ids)), before - left_out)
        if not (prompt.uncached_before or prompt.uncached_after or opening or closing):
            return whole
        first, last = before + opening, before + sum(map(len, conversation)) - closing
        own = [i for i, (start, stop) in enumerate(whole._spans) if stop > first and start < last]
        return replace(whole, own=range(own[0], own[-1] + 1) if own else range(0))

    def around(self, window: range, opening: Sequence[int] = ()) -> npt.NDArray[np.int64]:
        """The ids of a window's tokens, counted among the conversation's own, with the prompt's around them.

        `opening` is how the turn begins in which the window does, in as many tokens as the first turn.
        """
        kept = self.own[window.start : window.stop]
        before = self.ids[: self.own.start]
        if window.start and opening:
            before = np.concatenate([before[: -len(opening)], np.array(opening, dtype=np.int64)])
        return np.concatenate([before, self.ids[kept.start : kept.stop], self.ids[self.own.stop :]])

    def begins(self, window: range) -> int:
        """The character of the conversation at which a window begins."""
        return self._spans[self.own[window.start]][0] - self.begin

    def places(self, window: range, transcript: Transcript) -> tuple[Place, Place]:
        """Where a window begins and ends."""
        end = self._spans[self.own[window.stop - 1]][1] - self.begin
        return transcript.place(self.begins(window)), transcript.place(end)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """The characters that each token stands for, in the text that was encoded."""
        return list(itertools.chain.from_iterable(piece.spans for piece in self.pieces))
