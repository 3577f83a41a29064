"""The status of an error that came through a Python model's own request, which Triton before 25 loses on the way."""

from __future__ import annotations

import re
from typing import Literal

from verdictree.wire import NOT_TAKING

Code = Literal["INVALID_ARG", "UNAVAILABLE", "INTERNAL"]

_ENSEMBLES = re.compile(r"^(?:in ensemble '[^']*', )*")
_PATTERNS: tuple[tuple[str, Code], ...] = (
    # Triton's own words: a full queue, a request that waited too long in one, a release that is not loaded.
    (f"^{NOT_TAKING}", "UNAVAILABLE"),
    ("exceeds maximum queue size|timeout expired|stopped accepting", "UNAVAILABLE"),
    ("unknown model|not ready|not healthy|no available versions", "UNAVAILABLE"),
    # The tokenizer's, which refuses a conversation as InvalidConversation says.
    ("^expected ", "INVALID_ARG"),
)


def code_of(message: str) -> Code:
    """The name of the `TritonError` code that the message was sent with."""
    said = _ENSEMBLES.sub("", message)
    return next((code for pattern, code in _PATTERNS if re.search(pattern, said, re.IGNORECASE)), "INTERNAL")
