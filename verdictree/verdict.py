"""The answer: every category's probability for one conversation, and how much of it is certain."""

from __future__ import annotations

from typing import Literal

import msgspec

Action = Literal["allow", "review", "block"]
ACTIONS: tuple[Action, ...] = ("allow", "review", "block")  # the worst comes last
_ROUNDING = 1e-6  # of sums of probabilities


class CategoryScore(msgspec.Struct, frozen=True, omit_defaults=True):
    """The three estimates of one category's probability (arXiv 2511.22312), each in [0, 1].

    marginal     probability that the verdict names the category, at whatever place
    joint        product of the label tokens of the greedy verdict up to this category; 0 if it is not named there
    conditional  probability of the category's last token where the greedy verdict names it; 0 if it is not
    calibrated   the marginal after calibration on labelled data; None where the category is not calibrated
    flagged      whether `calibrated`, or else the marginal, reaches the category's threshold; None where it has none
    window       which of the verdict's windows these are of: that with the largest marginal; None without windows
    action       "block" where flagged, "review" in the review band below, else "allow"; None where it has neither a
                 threshold nor a band
    """

    code: str
    name: str
    marginal: float
    joint: float
    conditional: float
    calibrated: float | None = None
    flagged: bool | None = None
    window: int | None = None
    action: Action | None = None


class Place(msgspec.Struct, frozen=True):
    """A place in a conversation: that before a character of a message's content, both counted from 0."""

    message: int
    character: int


class Window(msgspec.Struct, frozen=True):
    """A part of a long conversation that was judged by itself: where it begins and ends, and its own P(unsafe)."""

    begin: Place
    end: Place
    p_unsafe: float


class GreedyVerdict(msgspec.Struct, frozen=True):
    """The text that greedy decoding answers.

    `complete` is False where the text could be followed only so far: the guard's most likely next token left the
    grammar, or the verdict went past the labels or the probability that the release explores.
    """

    text: str
    labels: tuple[str, ...]
    complete: bool


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the guard says of one conversation, as probabilities over its own answers.

    The true marginal of a category lies in [marginal, marginal + unexplored]. `p_safe` and `p_unsafe` are the
    probabilities that the answer begins with the safe or the unsafe word, `p_controversial` with that in between, which
    few guards have (else None). A guard that is asked about one category at a time has `p_unsafe` of its most and
    `p_safe` of its least harmless category. `unexplored` is the probability of all answers that were not followed to
    their end; `off_grammar` is its part that leaves the grammar: no verdict at all, or one in a form that the guard's
    makers do not publish. All are normalized over the model's full vocabulary. `categories` are the
    policy's; the greedy verdict may name others that the release knows. `flagged` says whether anything of it reaches
    its threshold, a category or the whole answer; None where nothing has a threshold. `unsafe_flagged` says it of the
    whole answer only: whether `p_unsafe_calibrated`, or else `p_unsafe`, reaches its threshold; None where that has
    none. `calibration` names the calibration's version, None where the policy is not calibrated. `undecided` says that
    the guard answers something else than a verdict, with more probability than the release allows: small
    probabilities mean nothing then, and the verdict is flagged.

    `action` says what to do: the worst of the categories' actions and the whole answer's. "block" where `flagged`,
    "review" where something lies in its review band, else "allow"; None where nothing has a threshold or a band, and
    from a server that is older than the field. Only "allow" says that the conversation may pass.

    A conversation that was judged part by part has its `windows`, else there are none. Every number is then that of
    the worst window: a category's three are those of the window with its largest marginal, `p_safe` is the least,
    `greedy` is that of the window with the largest `p_unsafe`, all others are the largest. What is said above of
    marginals holds of each window.

    `exit_layer` says that the guard read the conversation through so many of its layers only, and found it plainly
    safe; None where it was read through all. The numbers are limits then: P(unsafe) and every marginal lie in
    [0, `p_unsafe`], P(safe) is at least `p_safe` where the answer is a verdict at all, no category has a score that
    was computed, and nothing is flagged. What share of conversations leaves that should not is part of the release.
    """

    release: int
    policy: str
    role: str
    p_unsafe: float
    p_safe: float
    categories: tuple[CategoryScore, ...]
    unexplored: float
    off_grammar: float
    greedy: GreedyVerdict
    num_tokens: int
    num_truncated_tokens: int
    p_unsafe_calibrated: float | None = None
    flagged: bool | None = None
    unsafe_flagged: bool | None = None
    calibration: str | None = None
    p_controversial: float | None = None
    undecided: bool = False
    windows: tuple[Window, ...] = ()
    action: Action | None = None
    exit_layer: int | None = None

    def __getitem__(self, code: str) -> CategoryScore:
        """The scores of the category with this code; KeyError, naming the known codes, where the policy has none."""
        for score in self.categories:
            if score.code == code:
                return score
        raise KeyError(f"{code!r} is not a category of policy {self.policy!r}: {[s.code for s in self.categories]}")

    @property
    def ranked(self) -> tuple[CategoryScore, ...]:
        """The categories, most probable first (by marginal)."""
        return tuple(sorted(self.categories, key=lambda score: -score.marginal))

    def fault(self) -> str | None:
        """Why this is no verdict (a number that is no probability, no category), or None."""
        named: list[tuple[str, float | None]] = [
            (name, getattr(self, name))
            for name in ("p_unsafe", "p_safe", "unexplored", "off_grammar", "p_unsafe_calibrated", "p_controversial")
        ]
        for score in self.categories:
            names = ("marginal", "joint", "conditional", "calibrated")
            named += [(f"{name} of {score.code!r}", getattr(score, name)) for name in names]
        named += [(f"p_unsafe of window {number}", window.p_unsafe) for number, window in enumerate(self.windows)]
        for name, value in named:
            if value is not None and not -_ROUNDING <= value <= 1 + _ROUNDING:  # NaN is not within
                return f"{name} is {value}, which is no probability"
        for score in self.categories:
            if score.window is not None and not 0 <= score.window < len(self.windows):
                return f"{score.code!r} is of window {score.window}, of {len(self.windows)}"
        return None if self.categories else "it has no categories"

    def to_json(self) -> bytes:
        """UTF-8 JSON that `parse` reads back without loss."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(Verdict)


def parse(body: bytes) -> Verdict:
    """Read a verdict's JSON; msgspec.DecodeError where it is none. Unknown fields are a newer server's: ignored."""
    return _decoder.decode(body)
