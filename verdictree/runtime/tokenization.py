"""From a request's JSON to the token ids that the graph takes: the first step of a request."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from verdictree.conversation import ROLES, Conversation, Truncate
from verdictree.errors import InvalidConversation
from verdictree.families.marked_text import MarkedText, joined, starting_at
from verdictree.families.transcript import Transcript
from verdictree.releases.prompt import Prompt
from verdictree.releases.release import TOKENIZER_FILE, Release
from verdictree.runtime.encoded_text import EncodedText, token_ids
from verdictree.runtime.graph_io import feeds
from verdictree.runtime.plain_text import plain_text
from verdictree.runtime.text_pieces import WORD_BORDER, pieces
from verdictree.runtime.windows import MAX_WINDOWS, apart, capacity, token_counts, token_windows
from verdictree.verdict import Place
from verdictree.verdict_tree.questions import repeated

_MIN_CHARACTERS_A_TOKEN = 4  # of a piece, times the tokens allowed: pieces small beside what may be encoded anyway
_UNSAFE_CUT_TOKENS = 32  # more than a cut through a word can add to the number of its tokens
_COUNTED_PIECES = 16


@dataclass(frozen=True)
class TokenizedConversation:
    """A request as the graph takes it.

    prefix_ids     (windows * questions,) the entries of the prefix KV cache that ask about the conversation, mostly one
    input_ids      (windows * questions * tokens,) the conversation's ids, once for each question
    num_tokens     ids that are judged: the conversation's, with the prompt's words that are encoded with it
    num_truncated  the conversation's ids that were cut off before; estimated by its characters where it is many times
                   longer than what is judged
    windows        where each window begins and ends; none where there is one
    """

    input_ids: npt.NDArray[np.int64]
    prefix_ids: tuple[int, ...]
    num_tokens: int
    num_truncated: int
    windows: tuple[tuple[Place, Place], ...] = ()

    @property
    def token_counts(self) -> tuple[int, ...]:
        """What the scorer is told beside the graph's outputs."""
        return token_counts(self.num_tokens, self.num_truncated, self.windows)

    def apart(self) -> list[TokenizedConversation]:
        """Each window as a conversation of its own."""
        parts = apart(self.input_ids, np.array(self.prefix_ids), len(self.windows) or 1)
        return [TokenizedConversation(ids, tuple(asked.tolist()), len(ids) // len(asked), 0) for ids, asked in parts]


def batch_feeds(batch: Sequence[TokenizedConversation]) -> dict[str, npt.NDArray[Any]]:
    """The graph's inputs for a batch, of as many windows each."""
    return feeds([each.input_ids for each in batch], [each.prefix_ids for each in batch])


def load_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer in a release's directory of `guard_tokenizer`, to which control tokens are plain text."""
    return plain_text(Tokenizer.from_file(str(directory / TOKENIZER_FILE)))


class ConversationTokenizer:
    """Renders and encodes conversations for one release.

    Text that spells a control token is encoded as plain text, so no message can close its turn. What a text of any
    length costs is bounded by what a text of the longest allowed length costs, a few times over.
    """

    def __init__(self, release: Release, tokenizer: Tokenizer) -> None:
        """`tokenizer` must encode control tokens as plain text, as `load_tokenizer` makes it."""
        self._release = release
        self._tokenizer = tokenizer
        self._piece = _MIN_CHARACTERS_A_TOKEN * release.max_tokens
        form = release.conversation
        self._openings = {role: token_ids(tokenizer, form.opening(role)) for role in ROLES if role in form.turns}
        # A part of a conversation begins as the turn does that it is of, and parts are of one size.
        sizes = {(len(ids), form.closing(role)) for role, ids in self._openings.items()}
        self._can_be_cut = len(sizes) == 1

    @classmethod
    def load(cls, release: Release, directory: Path) -> Self:
        """The tokenizer in a release's directory of `guard_tokenizer`."""
        return cls(release, load_tokenizer(directory))

    def __call__(self, conversation: Conversation) -> TokenizedConversation:
        """Encode a validated conversation.

        Raises InvalidConversation for a policy that the release lacks, for a role that the policy does not judge, and
        for more than the release's `max_tokens` tokens unless it asks for truncation, which keeps the last ones, or for
        windows, and for more than those hold. Where control tokens mark the turns, every part that is judged stands
        between those of a turn; conversations of a format in which roles differ there cannot be cut.
        """
        release = self._release
        policy = release.policy_named(conversation.policy)
        prefix_ids = release.prefix_ids(policy, conversation.judged_role)
        prompt = release.prompts[prefix_ids[0]]
        truncate = conversation.truncate if self._can_be_cut else None
        transcript = Transcript(release.conversation, conversation.messages)
        encoded, before = self._encoded(conversation, prompt, transcript, truncate)
        windows = self._windows(encoded, truncate)
        parts = [encoded.around(window, self._opening(encoded, window, transcript)) for window in windows]
        places: tuple[tuple[Place, Place], ...] = ()
        if len(windows) > 1:
            places = tuple(encoded.places(window, transcript) for window in windows)
        cut = windows[0].start
        return TokenizedConversation(
            input_ids=np.concatenate([repeated(ids, len(prefix_ids)) for ids in parts]),
            prefix_ids=self._asked(prefix_ids, len(windows), conversation.exact),
            num_tokens=len(encoded.ids) - cut,
            num_truncated=before + cut,
            windows=places,
        )

    def _asked(self, prefix_ids: tuple[int, ...], num_windows: int, exact: bool) -> tuple[int, ...]:
        """The numbers that the graph is given: those beyond all prompts where a conversation must not leave it early.

        That of several windows must not: the worst of them is the verdict, and limits have no worst.
        """
        stays = self._release.early_exit is not None and (exact or num_windows > 1)
        beyond = len(self._release.prompts) if stays else 0
        return tuple(number + beyond for number in prefix_ids) * num_windows

    def _encoded(
        self, conversation: Conversation, prompt: Prompt, transcript: Transcript, truncate: Truncate | None
    ) -> tuple[EncodedText, int]:
        """The conversation, or somewhat more of its end than is kept, and how many tokens lie before that."""
        form, messages = self._release.conversation, conversation.messages
        text, start, before, opening = form.marked(messages), 0, 0, 0
        if truncate == "head":
            start, before = self._end_of(text)
        else:
            self._refuse_too_long(prompt.marked(text), truncate)
        if form.control_tokens:  # what is encoded begins as a turn does; `_opening` puts the right one in
            begin = form.opening(transcript.role(0))
            text, opening = joined(begin, starting_at(text, start)) if start else text, len("".join(begin))
        elif start:
            text = starting_at(text, start)
        left_out = start - opening if start else 0
        closing = len(form.closing(messages[-1].role))
        return EncodedText.of(self._tokenizer, prompt, text, opening, closing, left_out), before

    def _opening(self, encoded: EncodedText, window: range, transcript: Transcript) -> list[int]:
        """How the turn begins in which a window does, in control tokens."""
        if not (window.start and self._release.conversation.control_tokens):
            return []
        return self._openings[transcript.role(encoded.begins(window))]

    def _windows(self, encoded: EncodedText, truncate: Truncate | None) -> tuple[range, ...]:
        """Which of the conversation's own tokens are judged, part by part: mostly all of them, at once."""
        num_own, num_ids, max_tokens = len(encoded.own), len(encoded.ids), self._release.max_tokens
        if num_ids <= max_tokens:
            return (range(num_own),)
        if truncate is None:
            raise self._too_long(max_tokens, str(num_ids), truncate)
        limit = max_tokens - (num_ids - num_own)
        if limit < 1:
            raise InvalidConversation(f"expected room for a conversation, but the prompt's own words take {num_ids}")
        if truncate == "head":
            return (range(num_own - limit, num_own),)
        if num_own > capacity(limit):
            raise self._too_long(num_ids - num_own + capacity(limit), str(num_ids), truncate)
        return token_windows(num_own, limit)

    def _refuse_too_long(self, text: MarkedText, truncate: Truncate | None) -> None:
        """Refuse a text that has more tokens than are allowed, having encoded little more than are allowed."""
        if sum(map(len, text)) <= self._piece:
            return
        max_tokens, counted, slack = self._release.max_tokens, len(text) // 2, 0
        limit = capacity(max_tokens) if truncate == "windows" else max_tokens
        for piece, is_whole in itertools.chain.from_iterable(pieces(part, self._piece) for part in text[::2]):
            counted += self._count(piece)
            slack += 0 if is_whole else _UNSAFE_CUT_TOKENS
            if counted - slack > limit:
                raise self._too_long(limit, f"{limit + 1} or more", truncate)

    def _end_of(self, text: MarkedText) -> tuple[int, int]:
        """Where the end of a text begins in which more tokens lie than are allowed, and how many lie before it."""
        whole = "".join(text)
        kept = self._piece
        while kept < len(whole):
            border = WORD_BORDER.search(whole, len(whole) - kept, min(len(whole), len(whole) - kept // 2))
            start = border.start() if border else len(whole) - kept
            # Some more than are kept: a cut within a word changes the tokens close to it.
            num_tokens = len(token_ids(self._tokenizer, starting_at(text, start)))
            if num_tokens > self._release.max_tokens + _UNSAFE_CUT_TOKENS:
                return start, self._estimated_count(whole[:start])
            kept *= 2
        return 0, 0

    def _estimated_count(self, text: str) -> int:
        """The number of tokens, of a very long text by its last part's."""
        counted = text[-_COUNTED_PIECES * self._piece :]
        num_counted = sum(self._count(piece) for piece, _ in pieces(counted, self._piece))
        return round(num_counted * len(text) / len(counted)) if counted else 0

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _too_long(self, limit: int, num_tokens: str, truncate: Truncate | None) -> InvalidConversation:
        got = f"expected at most {limit} tokens, got {num_tokens}"
        if truncate == "windows":
            return InvalidConversation(f"{got}; {MAX_WINDOWS} windows hold no more: send it in several requests")
        if not self._can_be_cut:
            return InvalidConversation(
                f"{got}; shorten the conversation: this guard's prompt marks the turns of each role by another number "
                "of control tokens, so none can be cut"
            )
        return InvalidConversation(
            f'{got}; shorten the conversation, or send "truncate": "windows" to judge all of it, part by part, '
            'or "head" to judge its last tokens only'
        )
