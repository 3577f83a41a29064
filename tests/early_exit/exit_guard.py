"""What a tiny guard with an early exit is asked, and by which policy."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

from verdictree.conversation import Conversation, Message

_TEXT = "hello check the messages below categories what how kill make cake bomb eat hate"
WORDS = _TEXT.split()
MAX_MISSED = 0.2
LAYER = 2


def conversations(count: int, seed: int, role: str = "user") -> list[Conversation]:
    """Texts of a few known words."""
    rng = random.Random(seed)
    before = (Message("user", "What do you say?"),) if role == "assistant" else ()
    return [
        Conversation((*before, Message(role, " ".join(rng.choices(WORDS, k=rng.randint(1, 30)))))) for _ in range(count)
    ]


class Pair(NamedTuple):
    """A model repository: release 1 has an early exit, and release 2 is the same guard exported without one."""

    path: Path
    shown: list[Conversation]
