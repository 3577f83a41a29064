"""The token ids of one conversation, with those of the prompt's words that are encoded with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from verdictree.families.transcript import Transcript
from verdictree.releases.prompt import Prompt
from verdictree.verdict import Place


@dataclass(frozen=True)
class EncodedText:
    """What stands between prefix and suffix.

    ids    (tokens,)
    own    which of them are the conversation's own, not the prompt's
    begin  the character at which the conversation begins in the text that was encoded
    """

    encoding: Encoding
    ids: npt.NDArray[np.int64]
    own: range
    begin: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, prompt: Prompt, rendered: str) -> Self:
        """Encode a rendered conversation between a prompt's uncached texts."""
        encoding = tokenizer.encode(prompt.text(rendered), add_special_tokens=False)
        begin, first, last = len(prompt.uncached_before), 0, len(encoding.ids)
        if prompt.uncached_before or prompt.uncached_after:
            end = begin + len(rendered)
            own = [i for i, (start, stop) in enumerate(encoding.offsets) if stop > begin and start < end]
            first, last = (own[0], own[-1] + 1) if own else (0, 0)
        return cls(encoding, np.array(encoding.ids, dtype=np.int64), range(first, last), begin)

    def around(self, window: range) -> npt.NDArray[np.int64]:
        """The ids of a window's tokens, counted among the conversation's own, with the prompt's around them."""
        kept = self.own[window.start : window.stop]
        return np.concatenate([self.ids[: self.own.start], self.ids[kept.start : kept.stop], self.ids[self.own.stop :]])

    def places(self, window: range, transcript: Transcript) -> tuple[Place, Place]:
        """Where a window begins and ends."""
        kept = self.own[window.start : window.stop]
        begin, _ = self.encoding.token_to_chars(kept[0])
        _, end = self.encoding.token_to_chars(kept[-1])
        return transcript.place(begin - self.begin), transcript.place(end - self.begin)
