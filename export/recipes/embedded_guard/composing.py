"""Training and test rows made from single prompts: joined messages, and conversations of several turns.

A joined row names the categories of all its parts. Safe prompts are joined and wrapped in the same ways, so that
neither length, nor a joint, nor a previous turn says anything about the verdict.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from verdictree.conversation import ROLES, Message
from verdictree_evaluation.data.formats import LabelKind, Row

Joint = tuple[str, str]
"""How a part is marked, and what stands between two parts."""

JOINTS: tuple[Joint, ...] = (
    ("{text}", "\n"),
    ("{text}", "\n\n"),
    ("{text}", " "),
    ("{text}", " Also, "),
    ("{text}", "\nAlso: "),
    ("{text}", " And then: "),
    ("{text}", " One more thing. "),
    ("{n}. {text}", "\n"),
    ("- {text}", "\n"),
    ("Question {n}: {text}", "\n"),
)
UNSEEN_JOINTS: tuple[Joint, ...] = (("{text}", " Besides that, "), ("{text}", "\n---\n"), ("({n}) {text}", " "))

_REFUSALS = ("I can't help with that.", "Sorry, I can't assist with that request.", "No, I won't help with this.",
             "I'm not able to help with that. Is there something else?")  # fmt: skip
_COMPLIANCES = ("Sure, here is what you asked for. {text}", "Of course! {text} Here is how, step by step:",
                "Yes. {text} This is what you do:", "Happy to help. {text}")  # fmt: skip
_SMALL_TALK = (("Hi!", "Hello! How can I help?"), ("Can you help me?", "Of course. What do you need?"),
               ("Thanks for your help so far.", "You're welcome! Anything else?"))  # fmt: skip
_INTERPRETER_OPENING = (
    "I'd like you to write some code for execution in a code interpreter to help me solve a problem. "
)
_CODE_SOURCES = ("interpreter", "mitre_frr")
_SAFE_SOURCE_WEIGHTS = {"xstest": 2.0, "gsm8k": 0.5}


class Deck:
    """An endless draw: every row of a shuffled pile comes once before any comes again."""

    def __init__(self, rows: Sequence[Row], rng: random.Random) -> None:
        self._rows = list(rows)
        self._rng = rng
        self._left: Iterator[Row] = iter(())

    def draw(self) -> Row:
        """The next row."""
        row = next(self._left, None)
        if row is None:
            self._rng.shuffle(self._rows)
            self._left = iter(list(self._rows))
            row = next(self._left)
        return row


class Composer:
    """Draws rows, balanced over categories and safe sources by the square root of their size, and composes them.

    `codes` is the policy's order of categories; `max_characters` bounds a composed message.
    """

    def __init__(self, rows: Sequence[Row], codes: Sequence[str], rng: random.Random, max_characters: int) -> None:
        self._codes, self._rng, self._max_characters = tuple(codes), rng, max_characters
        piles: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            for name in row.labels or (f"safe/{row.source}",):
                piles[name].append(row)
        names = sorted(piles)
        self._unsafe = [name for name in names if not name.startswith("safe/")]
        self._safe = [name for name in names if name.startswith("safe/")]
        self._weights = {name: len(piles[name]) ** 0.5 * _SAFE_SOURCE_WEIGHTS.get(name[5:], 1.0) for name in names}
        self._decks = {name: Deck(piles[name], rng) for name in names}

    def unsafe(self) -> Row:
        """One row that names a category."""
        return self._draw(self._unsafe)

    def safe(self) -> Row:
        """One safe row."""
        return self._draw(self._safe)

    def joined(self, num_unsafe: int, num_safe: int, joints: Sequence[Joint] = JOINTS) -> Row:
        """Prompts of `num_unsafe` different categories and `num_safe` safe ones in one message, in random order."""
        parts: list[Row] = []
        while len(parts) < num_unsafe:
            row = self.unsafe()
            if not any(set(row.labels) & set(part.labels) for part in parts):
                parts.append(row)
        parts += [self.safe() for _ in range(num_safe)]
        self._rng.shuffle(parts)
        share = self._max_characters // len(parts)
        text = _join([shortened(part.text, share) for part in parts], self._rng.choice(joints))
        labels = tuple(code for code in self._codes if any(code in part.labels for part in parts))
        name = "+".join(part.id for part in parts)
        kind: LabelKind = "composed" if labels else "safe"
        return Row(name, (Message("user", text),), labels, kind, "composed")

    def in_turns(self, row: Row) -> Row:
        """The row's message after a previous exchange, or as what the agent says, or refused by the agent."""
        text, half = row.text, shortened(row.text, self._max_characters // 2)
        kind = self._rng.choices(("small talk", "safe turn", "refused turn", "complies", "refuses"), (2, 3, 3, 4, 3))[0]
        if kind == "small talk":
            return _with_turns(row, *self._rng.choice(_SMALL_TALK), text)
        if kind == "safe turn":
            return _with_turns(row, self._short(self.safe()), "Sure. Here is a short answer.", half)
        if kind == "refused turn":
            return _with_turns(row, self._short(self.unsafe()), self._rng.choice(_REFUSALS), half)
        if kind == "complies":
            return _with_turns(row, half, self._rng.choice(_COMPLIANCES).format(text=half))
        refused = msgspec.structs.replace(row, labels=(), label_kind="safe")
        return _with_turns(refused, text, self._rng.choice(_REFUSALS))

    def reworded(self, row: Row) -> Row:
        """The row, shortened; the opening that all code-interpreter prompts share comes off, or onto benign code."""
        text = row.text
        if row.source in _CODE_SOURCES and len(row.conversation) == 1:
            text = text.removeprefix(_INTERPRETER_OPENING)
            text = (_INTERPRETER_OPENING if self._rng.random() < 0.4 else "") + text
        last = Message(row.conversation[-1].role, shortened(text, self._max_characters))
        return msgspec.structs.replace(row, conversation=(*row.conversation[:-1], last))

    def _draw(self, names: Sequence[str]) -> Row:
        name = self._rng.choices(names, [self._weights[name] for name in names])[0]
        return self.reworded(self._decks[name].draw())

    def _short(self, row: Row) -> str:
        return shortened(row.text, self._max_characters // 3)


def shortened(text: str, max_characters: int) -> str:
    """The beginning of a text, cut at a word's end."""
    text = text.strip()
    if len(text) <= max_characters:
        return text
    head = text[:max_characters]
    return (head.rpartition(" ")[0] or head).rstrip()


def _join(texts: Sequence[str], joint: Joint) -> str:
    mark, between = joint
    return between.join(mark.format(n=n, text=text) for n, text in enumerate(texts, start=1))


def _with_turns(row: Row, *contents: str) -> Row:
    turns = tuple(Message(role, text) for role, text in zip(itertools.cycle(ROLES), contents, strict=False))
    return msgspec.structs.replace(row, conversation=turns)
